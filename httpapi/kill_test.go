package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/operation"
)

// child is a real pgbaton serve.
type child struct {
	*service
	cmd *exec.Cmd
	log string
}

func buildProgram(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pgbaton")
	if out, err := exec.Command("go", "build", "-o", path, "../cmd/pgbaton").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

func serveChild(t *testing.T, program, configFile, log string) *child {
	t.Helper()
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	before, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", "--listen", "127.0.0.1:0", "--config", configFile, "--log-level", "debug")
	cmd.Stderr, cmd.Stdout = file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: cmd, log: log, service: &service{t: t, out: &output{}, token: operateToken,
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _, _ = cmd.Process.Wait() })
	eventually(t, "it listens", func() bool {
		text, _ := os.ReadFile(log)
		m := regexp.MustCompile(`msg=listening .*address=(\S+)`).FindSubmatch(text[len(before):])
		if m != nil {
			c.url = "http://" + string(m[1])
		}
		return m != nil
	})
	return c
}

func (c *child) kill(s syscall.Signal) *os.ProcessState {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
	state, err := c.cmd.Process.Wait()
	if err != nil {
		c.t.Fatal(err)
	}
	return state
}

// TestKilled: kill -9 of a real server in the middle of a pause of a real pooler, and of a reload that waits. Its successor has the
// operations, unknown as long as they are, and then with what they have come to.
func TestKilled(t *testing.T) {
	single.Need(t)
	program := buildProgram(t)
	pg, err := single.StartPostgres(t.Context(), single.SuiteTrixie, single.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pg.Close)
	pooler, err := single.StartPgBouncer(t.Context(), single.SuiteTrixie, single.PgBouncerOptions{Backend: pg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pooler.Close)
	dir := t.TempDir()
	writeText(t, dir+"/tokens", "operator operate "+operateToken+"\n")
	writeText(t, dir+"/version", "1\n")
	writeText(t, dir+"/admin", single.Password+"\n")
	writeText(t, dir+"/pgbaton.yaml", fmt.Sprintf(`patroni: {url: "http://127.0.0.1:1"}
postgres: %q
poolers:
  - dsn: postgres://%s@%s:%d/pgbouncer?sslmode=disable
    password_file: admin
versions: {pgbouncer: {file: version}}
serve: {tokens_file: tokens, grace: 2s}
state_dir: %s/state
`, pg.SocketDSN("postgres", "postgres"), single.AdminUser, pooler.Addr, pooler.Port, dir))
	log := filepath.Join(dir, "log")
	c := serveChild(t, program, dir+"/pgbaton.yaml", log)

	// A session that does not drain.
	session, err := pgconn.Connect(t.Context(), pooler.DSN("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close(context.Background())
	if _, err := session.Exec(t.Context(), "begin; select 1").ReadAll(); err != nil {
		t.Fatal(err)
	}
	o := c.expect(c.do("POST", "/v1/pgbouncer/pause", `{"timeout":"1m","lease":"50s"}`, "Idempotency-Key: once"), 202, "").operation(t)
	eventually(t, "PAUSE is sent", func() bool {
		o = c.do("GET", o.Path(), "").operation(t)
		return strings.Contains(fmt.Sprint(o.Steps), "PAUSE sent")
	})
	c.kill(syscall.SIGKILL)

	c = serveChild(t, program, dir+"/pgbaton.yaml", log)
	again := c.do("POST", "/v1/pgbouncer/pause", `{"timeout":"1m","lease":"50s"}`, "Idempotency-Key: once").operation(t)
	if again.ID != o.ID {
		t.Fatalf("the key is forgotten: %+v", again)
	}
	o = c.until(o.ID, api.Unknown)
	if o.Problem == nil || o.Problem.Type != unknownOutcome.uri() || !o.Ended.IsZero() {
		t.Errorf("%+v", o)
	}
	eventually(t, "it sees the pause", func() bool {
		o = c.do("GET", o.Path(), "").operation(t)
		return strings.Contains(fmt.Sprint(o.Steps), "1 pooler(s) paused, not seen drained; the lease ends that at")
	})
	c.expect(c.do("POST", "/v1/pgbouncer/resume", ""), 200, "")
	o = c.until(o.ID, api.Failed)
	if !strings.Contains(o.Problem.Detail, "nothing of it stands any more") || o.Problem.Type != interrupted.uri() {
		t.Errorf("%+v", o.Problem)
	}
	if _, err := session.Exec(t.Context(), "commit").ReadAll(); err != nil {
		t.Fatal(err)
	}

	// A pause that nothing keeps from draining, and then the end of its lease.
	pause := c.do("POST", "/v1/pgbouncer/pause", `{"lease":"3s"}`).operation(t)
	pause = c.until(pause.ID, api.Succeeded)
	if text := fmt.Sprint(pause.Steps); !strings.Contains(text, "drained after") {
		t.Errorf("%s", text)
	}
	var metrics string
	eventually(t, "the lease is over and counted", func() bool {
		metrics = string(c.do("GET", "/metrics", "").body)
		return strings.Contains(metrics, "pgbaton_leases_expired_total 1")
	})
	for _, want := range []string{`pgbaton_drain_seconds_count 1`, `pgbaton_config_version{stage="wanted",target="pgbouncer"} 1`,
		`pgbaton_pooler_up{pooler=`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in\n%s", want, metrics)
		}
	}

	// A reload that waits for a version.
	reload := c.do("POST", "/v1/pgbouncer/reload", `{"configVersion":"2","timeout":"1m"}`).operation(t)
	eventually(t, "the reload has begun to wait", func() bool { return len(c.do("GET", reload.Path(), "").operation(t).Steps) > 2 })
	c.kill(syscall.SIGKILL)
	c = serveChild(t, program, dir+"/pgbaton.yaml", log)
	eventually(t, "the reload is settled", func() bool {
		reload = c.do("GET", reload.Path(), "").operation(t)
		return !reload.Ended.IsZero()
	})
	if reload.State != api.Unknown || !strings.Contains(reload.Problem.Detail, "version 2 cannot be seen applied") {
		t.Errorf("%+v", reload)
	}
	writeText(t, dir+"/version", "2\n")
	reload = c.do("POST", "/v1/pgbouncer/reload", `{"configVersion":"2","timeout":"1m"}`).operation(t)
	eventually(t, "it is reloaded", func() bool {
		reload = c.do("GET", reload.Path(), "").operation(t)
		return !reload.Ended.IsZero()
	})
	if reload.Result == nil || reload.Result.Reload == nil || len(reload.Result.Reload.Poolers) != 1 {
		t.Errorf("%+v", reload)
	}

	if state := c.kill(syscall.SIGTERM); state.ExitCode() != 0 {
		t.Errorf("%v", state)
	}
	said := ""
	for _, file := range []string{log, dir + "/state/operations.json", dir + "/state/journal.jsonl"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		said += string(text)
	}
	noSecrets(t, said+c.out.String())
	if strings.Contains(said, single.Password) {
		t.Error("the poolers' password is in the output")
	}
	if t.Failed() {
		text, _ := os.ReadFile(log)
		t.Logf("%s", text)
	}
}

// TestPendingAtTheEnd: what had not begun when the server was killed has failed, and that is the truth.
func TestPendingAtTheEnd(t *testing.T) {
	a := start(t, &fake{}, nil)
	if err := a.end(); err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	saved := savedState{Operations: []operation.Operation{
		{ID: "0000000000000001", Kind: api.KindPause, State: api.Pending, Created: now, Steps: []api.Step{}},
		{ID: "0000000000000002", Kind: api.KindResume, State: api.Running, Created: now, Started: now, Steps: []api.Step{}},
	}}
	saved.write(t, a.config.StateDir)
	b := startWith(t, a.config, &fake{}, nil)
	if o := b.until(saved.Operations[0].ID, api.Failed); !strings.Contains(o.Problem.Detail, "nothing was done") {
		t.Errorf("%+v", o.Problem)
	}
	b.until(saved.Operations[1].ID, api.Succeeded)
	// A reader may have seen steps that the server before was killed with. It gets the outcome all the same.
	if ids, text := readEvents(t, b, api.OperationPath(saved.Operations[1].ID)+"/events", "Last-Event-ID: 7"); len(ids) == 0 ||
		!strings.Contains(text, `"state":"succeeded"`) {
		t.Errorf("%v %s", ids, text)
	}
}
