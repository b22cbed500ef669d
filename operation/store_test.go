package operation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/health"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pause"
	"github.com/pgbaton/pgbaton/reload"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
)

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// TestBrokenState: what cannot be used of an earlier server's file is left out, and no server fails for it.
func TestBrokenState(t *testing.T) {
	good := `{"id":"0123456789abcdef","kind":"pgbouncer/pause","state":"succeeded","caller":"x","request":{},"created":"` +
		time.Now().UTC().Format(time.RFC3339) +
		`","ended":"` + time.Now().UTC().Format(time.RFC3339) + `","steps":[]}`
	for text, want := range map[string]int{
		"":                                 0,
		"{":                                0,
		`{"operations":[` + good + `]}`:    1,
		`{"operations":[` + good + `]} {}`: 0,
		`{"operations":[` + strings.Replace(good, "succeeded", "won", 1) + `,` + good + `]}`:                        1,
		`{"operations":[` + strings.Replace(good, "0123456789abcdef", "../../etc/passwd", 1) + `]}`:                 0,
		`{"operations":[` + strings.Replace(good, `"steps":[]`, `"steps":[{"id":2},{"id":1}]`, 1) + `]}`:            0,
		`{"operations":[` + strings.Replace(good, `"state":"succeeded"`, `"state":"running"`, 1) + `]}`:             0,
		`{"operations":[` + strings.Replace(good, `"kind":"pgbouncer/pause"`, `"kind":"cluster/explode"`, 1) + `]}`: 0,
	} {
		dir := t.TempDir()
		writeText(t, filepath.Join(dir, operationsFile), text)
		s := openStore(dir, judges(), testLog(t))
		if got := len(s.list()); got != want {
			t.Errorf("%s: %d operations, want %d", text, got, want)
		}
	}
}

// open is a Runner of which a reload does what the test says, and nothing else is done.
func open(t *testing.T, dir string, do func(context.Context, reload.Options) reload.Report) *Runner {
	t.Helper()
	calls := Calls{
		Pause:  func(context.Context, *member.Member, pause.Options) pause.Report { return pause.Report{} },
		Resume: func(context.Context, *member.Member) pause.Report { return pause.Report{} },
		Reload: func(ctx context.Context, _ *member.Member, o reload.Options) reload.Report {
			return do(ctx, o)
		},
		Status: func(context.Context, *member.Member) health.Status { return health.Status{} },
	}
	r, err := Open(Options{Member: &member.Member{Config: &config.Config{StateDir: dir}, Log: testLog(t)}, Log: testLog(t), Calls: calls})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Stop(5 * time.Second) // what is done writes to the state directory until its end
		r.Close()
	})
	return r
}

func writeText(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func reloaded(context.Context, reload.Options) reload.Report { return reload.Report{} }

// TestManySteps: of more than are kept the first and the newest stay, and their ids still go up.
func TestManySteps(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, func(_ context.Context, o reload.Options) reload.Report {
		for i := range 3 * maxSteps {
			o.Progress(reload.Progress{Text: fmt.Sprintf("%d %s", i, strings.Repeat("ä", 1000))})
		}
		return reload.Report{}
	})
	o, err := r.Reload(Demand{Caller: "somebody"}, reload.Options{Target: api.TargetPgBouncer})
	if err != nil {
		t.Fatal(err)
	}
	o, _ = r.Wait(t.Context(), o.ID)
	if len(o.Steps) != maxSteps || o.Steps[0].ID != 1 || o.Steps[maxSteps-1].ID != 3*maxSteps+3 || o.State != api.Succeeded {
		t.Errorf("%s, %d steps, the first %d, the last %d", o.State, len(o.Steps), o.Steps[0].ID, o.Steps[len(o.Steps)-1].ID)
	}
	r.Close()
	if got, _, ok := open(t, dir, reloaded).Get(o.ID); !ok || len(got.Steps) != maxSteps {
		t.Errorf("%v %d", ok, len(got.Steps))
	}
}

// TestForgotten: what ended a day ago is not kept, and its key is free again.
func TestForgotten(t *testing.T) {
	r := open(t, t.TempDir(), reloaded)
	d := Demand{Caller: "somebody", Key: "once"}
	first, err := r.Resume(d)
	if err != nil {
		t.Fatal(err)
	}
	r.Wait(t.Context(), first.ID)
	if again, err := r.Resume(d); err != nil || again.ID != first.ID {
		t.Errorf("%v %+v", err, again)
	}
	if _, err := r.Pause(d, pause.Options{}); !errors.Is(err, ErrKeyReused) {
		t.Errorf("the key of another kind: %v", err)
	}
	r.store.mu.Lock()
	r.store.now = func() time.Time { return time.Now().Add(25 * time.Hour) }
	r.store.mu.Unlock()
	if n := len(r.List()); n != 0 {
		t.Errorf("%d are kept after a day", n)
	}
	later, err := r.Resume(d)
	if err != nil || later.ID == first.ID {
		t.Errorf("%v %+v", err, later)
	}
	r.Wait(t.Context(), later.ID)
}

// TestRefusals: who is refused can tell why without reading a text.
func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	release := make(chan struct{})
	r := open(t, dir, func(context.Context, reload.Options) reload.Report {
		<-release
		return reload.Report{}
	})
	if _, err := Open(Options{Member: r.member, Log: testLog(t)}); !errors.Is(err, ErrBusy) {
		t.Errorf("a second one: %v", err)
	}
	o, err := r.Reload(Demand{}, reload.Options{Target: api.TargetPostgres})
	if err != nil || o.Kind != api.KindReloadPostgres {
		t.Fatalf("%v %+v", err, o)
	}
	var running *RunningError
	if _, err := r.Pause(Demand{}, pause.Options{}); !errors.As(err, &running) || running.Operation.ID != o.ID {
		t.Errorf("%v", err)
	}
	close(release)
	r.Wait(t.Context(), o.ID)
	if err := os.Rename(dir, dir+"-gone"); err != nil {
		t.Fatal(err)
	}
	var unsaved *UnsavedError
	if _, err := r.Pause(Demand{}, pause.Options{}); !errors.As(err, &unsaved) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if err := os.Rename(dir+"-gone", dir); err != nil {
		t.Fatal(err)
	}
	r.Stop(0)
	if _, err := r.Resume(Demand{}); !errors.Is(err, ErrEnding) {
		t.Errorf("%v", err)
	}
}

// TestTooLarge: what would not be read back is not written: the oldest are forgotten before. Of letters that JSON makes six bytes of a few
// are enough.
func TestTooLarge(t *testing.T) {
	dir := t.TempDir()
	const limit, many = 2 << 20, 8
	long := strings.Repeat("<", 1<<20)
	r := open(t, dir, func(_ context.Context, o reload.Options) reload.Report {
		for range maxSteps {
			o.Progress(reload.Progress{Text: long[:1000], Pooler: long[:1000], Target: long[:1000]})
		}
		return reload.Report{Result: member.Result{Code: member.Failed, Decision: long},
			ReloadReport: api.ReloadReport{Poolers: []api.PoolerReload{{Pooler: long, Error: long}}}}
	})
	r.store.limit = limit
	last := ""
	for i := range many {
		o, err := r.Reload(Demand{Caller: "somebody", Key: fmt.Sprint(i)}, reload.Options{Target: api.TargetPgBouncer})
		if err != nil {
			t.Fatal(err)
		}
		r.Wait(t.Context(), o.ID)
		last = o.ID
	}
	r.Close()
	info, err := os.Stat(filepath.Join(dir, operationsFile))
	if err != nil || info.Size() > limit {
		t.Fatalf("%v %d", err, info.Size())
	}
	r = open(t, dir, reloaded)
	if o, _, ok := r.Get(last); !ok || o.State != api.Failed || len(o.Steps) != maxSteps || len(o.Failure.Detail) > maxDetail+3 ||
		o.Result == nil {
		t.Errorf("%v %s", ok, o.State)
	}
	if n := len(r.List()); n < 2 || n == many {
		t.Errorf("%d of %d are kept", n, many)
	}
	if o, err := r.Reload(Demand{Caller: "somebody", Key: fmt.Sprint(many - 1)}, reload.Options{Target: api.TargetPgBouncer}); err != nil ||
		o.ID != last {
		t.Errorf("its key: %v %+v", err, o.ID)
	}
	if _, err := r.Reload(
		Demand{Caller: "somebody", Key: "0"},
		reload.Options{Target: api.TargetPgBouncer},
	); !errors.Is(
		err,
		ErrForgotten,
	) {
		t.Errorf("the key of one that is forgotten: %v", err)
	}
}
