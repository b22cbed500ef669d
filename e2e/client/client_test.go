package client_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/client/api"
	"github.com/pgbaton/pgbaton/e2e/client/serve"
	"github.com/pgbaton/pgbaton/e2e/single"
)

const token = "generated-client-0123456789"

func bearer(token string) api.ClientOption {
	return api.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+token)
		return nil
	})
}

// TestGeneratedClient works with a server as an operator would who has its document and nothing else.
func TestGeneratedClient(t *testing.T) {
	single.Need(t)
	t.Chdir("../..") // single looks for its scripts there
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	pg, err := single.StartPostgres(ctx, single.SuiteTrixie, single.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Close()
	pooler, err := single.StartPgBouncer(ctx, single.SuiteTrixie, single.PgBouncerOptions{Backend: pg})
	if err != nil {
		t.Fatal(err)
	}
	defer pooler.Close()
	address := fmt.Sprintf("%s:%d", pooler.Addr, pooler.Port)

	dir := t.TempDir()
	write(t, filepath.Join(dir, "tokens"), "operator operate "+token+"\n")
	write(t, filepath.Join(dir, "pooler-password"), single.Password+"\n")
	server, err := serve.Start(ctx, ".", dir, fmt.Sprintf(`
patroni: {url: "http://127.0.0.1:1"}
postgres: %q
poolers:
  - dsn: "postgres://%s@%s/pgbouncer"
    password_file: pooler-password
serve: {listen: "127.0.0.1:0", tokens_file: tokens}
state_dir: %q
`, fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres", pg.SocketDir, pg.Port), single.AdminUser, address, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
		if log := server.Log(); strings.Contains(log, token) || strings.Contains(log, single.Password) {
			t.Error("a token or password is in the log")
		}
	}()
	client, err := api.NewClientWithResponses(server.URL, bearer(token))
	if err != nil {
		t.Fatal(err)
	}

	status, err := client.GetStatusWithResponse(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if status.JSON200 == nil || len(status.JSON200.Conditions) != 5 || status.JSON200.ObservedAt.IsZero() ||
		len(status.JSON200.Poolers) != 1 || status.JSON200.Poolers[0].Pooler != address || status.JSON200.Poolers[0].Paused != "no" {
		t.Fatalf("status: %s", status.Body)
	}

	lease, key := "20s", "generated"
	paused, err := client.PausePoolersWithResponse(ctx, &api.PausePoolersParams{IdempotencyKey: &key}, api.PauseBody{Lease: &lease})
	if err != nil {
		t.Fatal(err)
	}
	if paused.JSON202 == nil || paused.HTTPResponse.Header.Get("Location") != "/v1/operations/"+paused.JSON202.Id {
		t.Fatalf("pause: %s %v %s", paused.Status(), paused.HTTPResponse.Header, paused.Body)
	}
	if o := wait(
		ctx,
		t,
		client,
		paused.JSON202.Id,
	); o.State != api.OperationStateSucceeded || o.Result == nil || o.Result.Until == nil ||
		len(*o.Result.Poolers) != 1 {
		t.Fatalf("pause: %+v", o)
	}
	shows := func(paused string) {
		t.Helper()
		status, err := client.GetStatusWithResponse(ctx)
		if err != nil || status.JSON200 == nil || status.JSON200.Poolers[0].Paused != paused {
			t.Errorf("who has waited for the end of an operation sees what it has done: want paused %s: %v %s", paused, err, status.Body)
		}
	}
	shows("yes")
	if list, err := client.ListOperationsWithResponse(ctx); err != nil || list.JSON200 == nil || len(list.JSON200.Operations) != 1 {
		t.Errorf("operations: %v %s", err, list.Body)
	}
	resumed, err := client.ResumePoolersWithResponse(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resumed.JSON202 != nil { // declared, for one that takes longer
		t.Errorf("resume: %s", resumed.Status())
	}
	if resumed.JSON200 == nil || resumed.JSON200.State != api.OperationStateSucceeded ||
		(*resumed.JSON200.Result.Poolers)[0].Done != "resumed" {
		t.Fatalf("resume: %s %s", resumed.Status(), resumed.Body)
	}
	shows("no")

	// Problems are typed.
	stranger, err := api.NewClientWithResponses(server.URL, bearer("nobody-knows-0123456789"))
	if err != nil {
		t.Fatal(err)
	}
	refused, err := stranger.GetStatusWithResponse(ctx)
	if err != nil {
		t.Fatal(err)
	}
	is(t, refused.ApplicationproblemJSON401, "unauthenticated", 401, api.Permanent)
	gone, err := client.GetOperationWithResponse(ctx, "0000000000000000")
	if err != nil {
		t.Fatal(err)
	}
	is(t, gone.ApplicationproblemJSON404, "operation-not-found", 404, api.NotFound)
	other := "21s"
	reused, err := client.PausePoolersWithResponse(ctx, &api.PausePoolersParams{IdempotencyKey: &key}, api.PauseBody{Lease: &other})
	if err != nil {
		t.Fatal(err)
	}
	is(t, reused.ApplicationproblemJSON422, "idempotency-key-reused", 422, api.Validation)
	wrong := "a while"
	invalid, err := client.PausePoolersWithResponse(ctx, nil, api.PauseBody{Lease: &wrong})
	if err != nil {
		t.Fatal(err)
	}
	is(t, invalid.ApplicationproblemJSON422, "invalid-request", 422, api.Validation)
	if p := invalid.ApplicationproblemJSON422; p != nil &&
		(p.Errors == nil || len(*p.Errors) != 1 || *(*p.Errors)[0].Location != "body.lease") {
		t.Errorf("errors: %s", invalid.Body)
	}

	// And so is the problem that an operation ends with.
	version, timeout := "7", "1s"
	reload, err := client.ReloadPoolersWithResponse(ctx, nil, api.ReloadBody{ConfigVersion: &version, Timeout: &timeout})
	if err != nil || reload.JSON202 == nil {
		t.Fatalf("reload: %v %s", err, reload.Body)
	}
	if o := wait(
		ctx,
		t,
		client,
		reload.JSON202.Id,
	); o.State != api.OperationStateFailed || o.Problem == nil || o.Problem.Class == "" ||
		o.Problem.Operation == nil {
		t.Errorf("reload of a version that has no source: %+v", o)
	} else {
		t.Logf("reload of a version that has no source: %s %s", o.Problem.Type, *o.Problem.Detail)
	}
}

// wait is the operation once it has ended.
func wait(ctx context.Context, t *testing.T, client *api.ClientWithResponses, id string) api.Operation {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		o, err := client.GetOperationWithResponse(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if o.JSON200 == nil {
			t.Fatalf("operation: %s %s", o.Status(), o.Body)
		}
		if o.JSON200.Ended != nil {
			return *o.JSON200
		}
	}
}

func is(t *testing.T, p *api.Problem, name string, status int64, class api.ProblemClass) {
	t.Helper()
	if p == nil {
		t.Errorf("no problem %s", name)
		return
	}
	if !strings.HasSuffix(p.Type, "/problems.md#"+name) || p.Status != status || p.Class != class || p.Title == "" || p.Instance == nil {
		t.Errorf("want problem %s, %d, %s: %+v", name, status, class, *p)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
