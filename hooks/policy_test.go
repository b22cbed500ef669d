package hooks

import (
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
)

func TestBeforeStopPolicies(t *testing.T) {
	t.Parallel()
	short := func(policy string) func(*config.Pause) {
		return func(p *config.Pause) {
			p.OnTimeout, p.Budget, p.Attempt = policy, 1500*time.Millisecond, 500*time.Millisecond
		}
	}
	for _, c := range []struct {
		policy   string
		decision string
		cut      bool // the transaction is ended by the guard
		paused   bool
	}{
		{config.OnTimeoutHold, "policy hold, the stop goes on; what still runs will be cut: pid", false, true},
		{config.OnTimeoutTerminate, "policy terminate, drained", true, true},
		{config.OnTimeoutSkip, "policy skip, nothing is paused", false, false},
	} {
		t.Run(c.policy, func(t *testing.T) {
			t.Parallel()
			pg, b, m, _ := guarded(t, "stopping", short(c.policy))
			open := membertest.OpenTransaction(t, b)
			direct := membertest.Connect(t, pg.DSN("postgres", "postgres")) // pg_dump, say: comes through no pooler
			direct.Must("begin")
			direct.Must("select txid_current()")
			took := run(t, m, member.BudgetSpent, c.decision)
			if took < 1400*time.Millisecond || took > 5*time.Second {
				t.Errorf("took %s", took)
			}
			if err := open.Exec("select 1"); (err != nil) != c.cut {
				t.Errorf("the transaction: %v", err)
			}
			if err := direct.Exec("select 1"); err != nil {
				t.Errorf("a session of no pooler was ended: %v", err)
			}
			if c.paused {
				paused(t, b)
			} else {
				membertest.PutBack(t, b)
				if !membertest.Usable(t, b, 5*time.Second) {
					t.Error("paused")
				}
			}
		})
	}
	t.Run("wait", func(t *testing.T) {
		t.Parallel()
		_, b, m, _ := guarded(t, "stopping", short(config.OnTimeoutWait))
		open := membertest.OpenTransaction(t, b)
		done := make(chan member.Result)
		began := time.Now()
		go func() { done <- BeforeStop(t.Context(), m, noExit(t)) }()
		// Others work while it waits, budget or not.
		for time.Since(began) < 2500*time.Millisecond {
			if !membertest.Usable(t, b, 2*time.Second) {
				t.Error("everybody waits for one transaction")
			}
			select {
			case result := <-done:
				t.Fatalf("after %s: %+v", time.Since(began), result)
			default:
			}
		}
		open.Must("commit")
		if result := <-done; result.Code != member.Done {
			t.Errorf("%+v", result)
		}
		paused(t, b)
	})
}

// Policy terminate ends what comes through the poolers; a session of its own that begins a transaction later is not it.
func TestBeforeStopTerminateSparesOthers(t *testing.T) {
	t.Parallel()
	pg, b, m, _ := guarded(t, "stopping", func(p *config.Pause) {
		p.OnTimeout, p.Budget, p.Attempt = config.OnTimeoutTerminate, time.Second, 500*time.Millisecond
	})
	membertest.OpenTransaction(t, b)
	stop, ended := make(chan struct{}), make(chan error, 1)
	direct := membertest.Connect(t, pg.DSN("postgres", "postgres")) // Patroni's own session, say
	go func() {
		for {
			if err := direct.Exec("select pg_sleep(0.03)"); err != nil {
				ended <- err
				return
			}
			select {
			case <-stop:
				ended <- nil
				return
			case <-time.After(30 * time.Millisecond):
			}
		}
	}()
	run(t, m, member.BudgetSpent, "policy terminate")
	close(stop)
	if err := <-ended; err != nil {
		t.Errorf("a session of no pooler was ended: %v", err)
	}
}
