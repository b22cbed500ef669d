package hooks

import (
	"context"
	"fmt"
	"net"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pause"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/state"
)

// guarded is a primary of its own, a pooler in front, and a runtime.
func guarded(
	t *testing.T,
	state string,
	change ...func(*config.Pause),
) (*single.Postgres, *single.PgBouncer, *member.Member, *membertest.Patroni) {
	t.Helper()
	pg := membertest.OwnPostgres(t)
	b := membertest.StartPooler(t, single.SuiteTrixie, pg)
	m := membertest.New(t, pg, b)
	m.Config.Pause.StopServer = false
	for _, c := range change {
		c(&m.Config.Pause)
	}
	t.Cleanup(func() { membertest.LetGo(m, b) })
	return pg, b, m, membertest.NewPatroni(t, m, state)
}

// noExit is for guards that do not hang.
func noExit(t *testing.T) func(int) {
	return func(code int) { t.Errorf("the last resort has ended the guard with %d", code) }
}

func run(t *testing.T, m *member.Member, code int, decision string) time.Duration {
	t.Helper()
	began := time.Now()
	result := BeforeStop(t.Context(), m, noExit(t))
	if result.Code != code || !strings.Contains(result.Decision, decision) {
		t.Errorf("code %d, %q; want %d, %q", result.Code, result.Decision, code, decision)
	}
	return time.Since(began)
}

func paused(t *testing.T, b *single.PgBouncer) {
	t.Helper()
	if s := membertest.StateOf(t, b); !s.Paused || s.Mark == nil || s.Mark.Owner != pgb.Guard {
		t.Errorf("not held: paused %v, mark %+v", s.Paused, s.Mark)
	}
}

func TestBeforeStopDrains(t *testing.T) {
	t.Parallel()
	pg, b, m, _ := guarded(t, "stopping")
	if !membertest.Usable(t, b, 5*time.Second) {
		t.Fatal("no use")
	}
	if took := run(t, m, member.Done, "1 pooler(s) paused and drained; stopping the server is left to Patroni"); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	paused(t, b)
	if membertest.Stopped(pg) {
		t.Error("stop_server is off, and the server is stopped")
	}
	entries, err := state.ReadJournal(m.Config.StateDir, 100)
	var events []string
	for _, e := range entries {
		events = append(events, e.Event)
	}
	if want := []string{
		state.EventStarted,
		state.EventPauseSent,
		state.EventDrained,
		state.EventReleased,
	}; err != nil ||
		!reflect.DeepEqual(events, want) {
		t.Errorf("journal %v, %v", events, err)
	}
}

func TestBeforeStopStopsTheServer(t *testing.T) {
	t.Parallel()
	pg, b, m, _ := guarded(t, "stopping", func(p *config.Pause) { p.StopServer = true })
	run(t, m, member.Done, "paused and drained; the server is stopped")
	membertest.Within(t, 5*time.Second, "the server is gone", func() bool { return membertest.Stopped(pg) })
	paused(t, b)
}

func TestBeforeStopRefusedByHand(t *testing.T) {
	t.Parallel()
	pg, b, m, _ := guarded(t, "running", func(p *config.Pause) { p.StopServer = true })
	before := membertest.StateOf(t, b)
	run(t, m, member.Refused, "Patroni is not stopping the server (state running)")
	if after := membertest.StateOf(t, b); !reflect.DeepEqual(before, after) || membertest.Stopped(pg) {
		t.Errorf("touched: paused %v, mark %+v, stopped %v", after.Paused, after.Mark, membertest.Stopped(pg))
	}
}

func TestBeforeStopLockLost(t *testing.T) { // not beside others: it is about milliseconds
	pg, b, m, f := guarded(t, "stopping", func(p *config.Pause) { p.StopServer = true })
	f.Set(func(f *membertest.Patroni) { f.Lost = true })
	before := membertest.StateOf(t, b)
	// 50 ms are promised; a race detector and a busy machine take their part, of the least of some the least. Nothing is touched, so it can
	// be run again.
	least := time.Hour
	for range 5 {
		least = min(least, run(t, m, member.Done, "lock is lost"))
	}
	if least > 300*time.Millisecond {
		t.Errorf("took %s at least", least)
	}
	if after := membertest.StateOf(t, b); !reflect.DeepEqual(before, after) || membertest.Stopped(pg) {
		t.Errorf("touched: paused %v, mark %+v", after.Paused, after.Mark)
	}
}

func TestBeforeStopLockLostMeanwhile(t *testing.T) {
	t.Parallel()
	_, b, m, f := guarded(t, "stopping", func(p *config.Pause) { p.Attempt = 10 * time.Second })
	open := membertest.OpenTransaction(t, b)
	done := make(chan member.Result)
	go func() { done <- BeforeStop(t.Context(), m, noExit(t)) }()
	membertest.Eventually(t, "paused", func() bool { return membertest.StateOf(t, b).Paused })
	f.Set(func(f *membertest.Patroni) { f.Lost = true })
	if result := <-done; result.Code != member.Done || !strings.Contains(result.Decision, "lock is lost") {
		t.Errorf("%+v", result)
	}
	membertest.PutBack(t, b)
	if membertest.StateOf(t, b).Paused {
		t.Error("still paused: another primary may be using the pooler")
	}
	open.Must("commit")
}

func TestBeforeStopDCSLost(t *testing.T) { // not beside others: it is about milliseconds
	for _, c := range []struct {
		name, decision string
		lose           func(*membertest.Patroni)
	}{
		{"a while ago", "(loop_wait 10s): the lock is not renewed, PAUSE is sent and not waited for",
			func(f *membertest.Patroni) { f.Seen = 14 * time.Second }},
		// Patroni's look has failed: its last sight is fresh, and GET /config hangs.
		{"just now", "has lost sight of the DCS: the lock is not renewed, PAUSE is sent and not waited for",
			func(f *membertest.Patroni) { f.Unseen = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, b, m, f := guarded(t, "stopping")
			f.Set(c.lose)
			open := membertest.OpenTransaction(t, b)
			if took := run(t, m, member.BudgetSpent, c.decision); took > 3*time.Second {
				t.Errorf("took %s", took)
			}
			membertest.Eventually(t, "paused", func() bool { return membertest.StateOf(t, b).Paused })
			paused(t, b)
			open.Must("commit")
		})
	}
}

// A pooler on a busy machine answers late. Nobody renews the lock, but it lasts: there is time for its log-in.
func TestBeforeStopDCSLostPoolerLate(t *testing.T) { // not beside others: it is about milliseconds
	_, b, m, f := guarded(t, "stopping")
	l := handOut(t, net.JoinHostPort(b.Addr, strconv.Itoa(int(b.Port))))
	l.mu.Lock()
	l.delay = 45 * time.Millisecond // of four messages of a log-in and what is asked then
	l.mu.Unlock()
	m.Config.Poolers[0].DSN = strings.Replace(b.AdminDSN(), fmt.Sprintf("%s:%d", b.Addr, b.Port), l.Addr().String(), 1)
	f.Set(func(f *membertest.Patroni) { f.Seen = 12 * time.Second })
	open := membertest.OpenTransaction(t, b)
	if took := run(t, m, member.BudgetSpent, "not waited for"); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
	membertest.Eventually(t, "paused", func() bool { return membertest.StateOf(t, b).Paused })
	open.Must("commit")
}

// The DCS is lost between two attempts, while nothing is paused: PAUSE is sent after all.
func TestBeforeStopDCSLostMeanwhile(t *testing.T) {
	t.Parallel()
	// A transaction that is older than an attempt is waited for without one.
	_, b, m, f := guarded(t, "stopping", func(p *config.Pause) { p.Attempt = 4 * time.Second })
	open := membertest.OpenTransaction(t, b)
	done := make(chan member.Result)
	go func() { done <- BeforeStop(t.Context(), m, noExit(t)) }()
	membertest.Eventually(t, "an attempt was taken back", func() bool {
		entries, _ := state.ReadJournal(m.Config.StateDir, 100)
		return len(entries) > 0 && entries[len(entries)-1].Event == state.EventUndone
	})
	f.Set(func(f *membertest.Patroni) { f.Seen = 14 * time.Second })
	if result := <-done; result.Code != member.BudgetSpent || !strings.Contains(result.Decision, "not waited for") {
		t.Errorf("%+v", result)
	}
	paused(t, b)
	open.Must("commit")
}

func TestBeforeStopSilentPatroni(t *testing.T) {
	t.Parallel()
	_, b, m, f := guarded(t, "stopping", func(p *config.Pause) { p.ShutdownBudget = 3 * time.Second; p.Attempt = 500 * time.Millisecond })
	silent := make(chan struct{})
	defer close(silent)
	f.Set(func(f *membertest.Patroni) { f.Silent = silent })
	open := membertest.OpenTransaction(t, b)
	took := run(t, m, member.BudgetSpent, "policy hold")
	if took < 2900*time.Millisecond || took > 7*time.Second {
		t.Errorf("took %s", took)
	}
	// Six of them fill the queue of a Patroni that shuts down, and the candidates' questions are dropped.
	if n := f.Asked.Load(); n != 1 {
		t.Errorf("a Patroni that does not answer was asked %d times", n)
	}
	paused(t, b)
	open.Must("commit")
}

// A pooler that dies while the guard waits costs the others nothing.
func TestBeforeStopPoolerDies(t *testing.T) {
	t.Parallel()
	pg, b, m, _ := guarded(t, "stopping", func(p *config.Pause) { p.Attempt = 4 * time.Second; p.Budget = 14 * time.Second })
	dies := membertest.StartPooler(t, single.SuiteTrixie, nil)
	old := m
	m = membertest.New(t, pg, b, dies)
	m.Config.Pause, m.Config.Patroni = old.Config.Pause, old.Config.Patroni
	t.Cleanup(func() {
		_ = dies.Start(context.Background()) // or the keeper waits for it
		membertest.LetGo(m, b)
	})
	open := membertest.OpenTransaction(t, b)
	done := make(chan member.Result)
	go func() { done <- BeforeStop(t.Context(), m, noExit(t)) }()
	membertest.Eventually(t, "an attempt was taken back", func() bool {
		entries, _ := state.ReadJournal(m.Config.StateDir, 100)
		return len(entries) > 0 && entries[len(entries)-1].Event == state.EventUndone
	})
	dies.Kill()
	open.Must("commit")
	began := time.Now()
	if result := <-done; result.Code != member.Done {
		t.Errorf("%+v", result)
	}
	if took := time.Since(began); took > 3500*time.Millisecond {
		t.Errorf("went on for %s", took)
	}
	paused(t, b)
}

// However long an attempt or the policy may take: when the lock is not renewed any more the guard goes.
func TestBeforeStopEndsBeforeTheLock(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{config.OnTimeoutHold, config.OnTimeoutWait} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			_, b, m, f := guarded(t, "stopping", func(p *config.Pause) {
				p.OnTimeout, p.Attempt, p.Budget = policy, 10*time.Second, 11*time.Second
			})
			f.Set(func(f *membertest.Patroni) { f.SeenAt = time.Now().Add(-9 * time.Second) }) // 3 s until that is too long ago
			open := membertest.OpenTransaction(t, b)
			if took := run(t, m, member.BudgetSpent, "has not seen the DCS"); took > 8*time.Second {
				t.Errorf("took %s", took)
			}
			paused(t, b)
			open.Must("commit")
		})
	}
}

// A second guard beside the first touches nothing while that runs, and takes over when it has ended: it may have been killed.
func TestBeforeStopJoins(t *testing.T) {
	t.Parallel()
	_, b, m, _ := guarded(t, "stopping")
	first, err := m.StateDir().TryLock(guardLock)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan member.Result)
	go func() { done <- BeforeStop(t.Context(), m, noExit(t)) }()
	member.Sleep(t.Context(), 300*time.Millisecond)
	membertest.PutBack(t, b)
	first.Release()
	if result := <-done; result.Code != member.Done || !strings.Contains(result.Decision, "paused and drained") {
		t.Errorf("%+v", result)
	}
	paused(t, b)
	if r := pause.Resume(t.Context(), m); r.Code != member.Done {
		t.Errorf("%+v", r)
	}
	membertest.PutBack(t, b)
}

func TestBeforeStopDryRun(t *testing.T) {
	t.Parallel()
	_, b, m, _ := guarded(t, "stopping")
	m.DryRun = true
	before := membertest.StateOf(t, b)
	run(t, m, member.Done, "would pause until")
	if after := membertest.StateOf(t, b); !reflect.DeepEqual(before, after) {
		t.Errorf("touched: paused %v, mark %+v", after.Paused, after.Mark)
	}
}

// A long transaction that comes through two poolers is seen, although SHOW SERVERS of the first one has the second one's process ids:
// nobody is paused for it.
func TestBeforeStopLongTransactionThroughTwoPoolers(t *testing.T) {
	t.Parallel()
	pg := membertest.OwnPostgres(t)
	second := membertest.StartPooler(t, single.SuiteTrixie, pg)
	first, err := single.StartPgBouncer(t.Context(), single.SuiteTrixie, single.PgBouncerOptions{
		Databases: fmt.Sprintf("* = host=%s port=%d", second.Addr, second.Port)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(first.Close)
	m := membertest.New(t, pg, first)
	m.Config.Pause.StopServer, m.Config.Pause.Attempt = false, 300*time.Millisecond
	t.Cleanup(func() { membertest.LetGo(m, first) })
	membertest.NewPatroni(t, m, "stopping")
	open := membertest.OpenTransaction(t, first)
	open.Must("select pg_sleep(0.4)") // longer than one attempt may take
	done := make(chan member.Result, 1)
	go func() { done <- BeforeStop(t.Context(), m, noExit(t)) }()
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); {
		if !membertest.Usable(t, first, 2*time.Second) {
			t.Error("everybody waits for one transaction")
		}
	}
	entries, err := state.ReadJournal(m.Config.StateDir, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Event == state.EventPauseSent {
			t.Errorf("paused for it: %+v", e)
		}
	}
	open.Must("commit")
	if result := <-done; result.Code != member.Done {
		t.Errorf("%+v", result)
	}
}

// With databases: auto a pooler none of whose databases leads to this cluster is another's: it is not touched.
func TestBeforeStopOfAnotherClustersPooler(t *testing.T) {
	t.Parallel()
	pg, other := membertest.OwnPostgres(t), membertest.SharedPostgres(t)
	b, err := single.StartPgBouncer(t.Context(), single.SuiteTrixie, single.PgBouncerOptions{
		Databases: fmt.Sprintf("postgres = host=%s port=%d dbname=postgres", other.Addr, other.Port)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	m := membertest.New(t, pg, b)
	membertest.Automatic(m, pg)
	membertest.NewPatroni(t, m, "stopping")
	m.Config.Pause.StopServer = false
	run(t, m, member.Done, "no database of any pooler leads to this cluster")
	if s := membertest.StateOf(t, b); s.Paused || len(s.PausedDBs) > 0 {
		t.Errorf("paused: %v, %v", s.Paused, s.PausedDBs)
	}
	membertest.PutBack(t, b)
}
