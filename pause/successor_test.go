package pause

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/state"
)

// handover is a guard's pause of a pooler that reaches the primary by a route, with a standby that can be promoted. The guard was killed,
// or has ended: only the keeper is left.
type handover struct {
	old, next *single.Postgres
	route     *membertest.Route
	pooler    *single.PgBouncer
	patroni   *membertest.Patroni
	keeper    *keeperProcess
	journal   string
}

func newHandover(t *testing.T) *handover {
	t.Helper()
	h := &handover{old: membertest.OwnPostgres(t)}
	var err error
	if h.next, err = single.StartStandby(t.Context(), h.old); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.next.Close)
	h.route = membertest.NewRoute(t, h.old)
	h.pooler, err = single.StartPgBouncer(t.Context(), single.SuiteTrixie, single.PgBouncerOptions{Backend: h.old,
		Databases: fmt.Sprintf("* = host=%s port=%d", h.route.Addr, h.route.Port)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.pooler.Close)
	if !membertest.Usable(t, h.pooler, 5*time.Second) {
		t.Fatal("does not work to begin with")
	}
	m := membertest.New(t, h.old, h.pooler)
	m.Config.Postgres = h.old.DSN("postgres", "postgres")
	h.patroni = membertest.NewPatroni(t, m, "running")
	h.lead(h.old)
	h.journal = m.Config.StateDir
	h.keeper = runKeeper(t, m, pgb.Guard, 4)
	h.keeper.send(time.Now().Add(time.Minute))
	markAndPause(t, h.pooler, pgb.Guard, 4)
	h.old.Stop()
	return h
}

// lead has Patroni say who the leader is.
func (h *handover) lead(leader *single.Postgres) {
	h.patroni.Set(func(f *membertest.Patroni) {
		f.Cluster = fmt.Sprintf(
			`{"scope": "demo", "members": [{"name": "n", "role": "leader", "state": "running", "host": %q, "port": %d}]}`,
			leader.Addr,
			leader.Port,
		)
	})
}

func (h *handover) promote(t *testing.T) {
	t.Helper()
	if err := h.next.Exec(t.Context(), "select pg_promote()"); err != nil {
		t.Fatal(err)
	}
}

// A worker that was killed resumes nothing. The keeper of the old member does, once the new primary is there and the route leads to it.
func TestKeeperFinishesAHandover(t *testing.T) {
	t.Parallel()
	h := newHandover(t)
	h.keeper.orphan()
	h.promote(t)
	h.lead(h.next)
	// The route does not lead there yet: nobody is let through.
	if membertest.Usable(t, h.pooler, 4*time.Second) {
		t.Fatal("resumed, and the route leads nowhere")
	}
	began := time.Now()
	h.route.Lead(h.next)
	if !membertest.Usable(t, h.pooler, 10*time.Second) {
		t.Fatal("still paused")
	}
	took := time.Since(began)
	t.Logf("resumed %s after the route led to the new primary", took.Round(time.Millisecond))
	// The keeper's rounds are log-ins, ten of them from the first look to the last proof; a busy machine takes long for one.
	began = time.Now()
	if err := h.next.Exec(t.Context(), "select 1"); err != nil {
		t.Fatal(err)
	}
	if limit := 5*time.Second + 10*time.Since(began); took > limit || took < workerTime-watchInterval {
		t.Errorf("resumed after %s, want %s to %s", took, workerTime, limit)
	}
	h.keeper.endsWithin(5 * time.Second)
	membertest.PutBack(t, h.pooler)
	entries, err := state.ReadJournal(h.journal, 10)
	if err != nil ||
		!slices.ContainsFunc(entries, func(e state.Entry) bool { return e.Event == state.EventResumed && e.Hook == "keeper" }) {
		t.Errorf("journal: %+v, %v", entries, err)
	}
}

// Wherever the handover is not done, the pause stands: the lease ends it.
func TestKeeperFinishesNothingElse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		make func(*testing.T, *handover)
	}{
		{"the route leads to a replica", func(_ *testing.T, h *handover) { h.route.Lead(h.next) }},
		{"the new primary has no lock", func(t *testing.T, h *handover) {
			h.promote(t)
			h.route.Lead(h.next)
		}},
		{"the pauser still lives", func(t *testing.T, h *handover) {
			h.promote(t)
			h.route.Lead(h.next)
			h.lead(h.next)
			h.keeper.send(time.Now().Add(time.Minute))
		}},
		{"a later pause", func(t *testing.T, h *handover) {
			h.promote(t)
			h.route.Lead(h.next)
			h.lead(h.next)
			resumeAndUnmark(t, h.pooler)
			markAndPause(t, h.pooler, pgb.Guard, 5)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHandover(t)
			c.make(t, h)
			if c.name != "the pauser still lives" {
				h.keeper.orphan()
			}
			if membertest.Usable(t, h.pooler, workerTime+2*time.Second) {
				t.Error("resumed")
			}
		})
	}
}

// established by rounds of looks, half a second apart.
func TestEstablished(t *testing.T) {
	start := time.Now()
	at := func(minute int) postgres.Identity {
		return postgres.Identity{SystemID: "7", Timeline: 2, PostmasterStart: start.Add(time.Duration(minute) * time.Minute)}
	}
	to := func(address string, server int) addressLooks { return addressLooks{address: address, to: at(server)} }
	no := func(address string) addressLooks { return addressLooks{address: address} }
	wavers := func(address string) addressLooks { return addressLooks{address: address, strayed: true} }
	for _, c := range []struct {
		name   string
		rounds func(i int) []addressLooks
		want   int // the round that is the first to say yes; 0: none of 20
	}{
		{"no address", func(int) []addressLooks { return nil }, 0},
		{"leads there at once", func(int) []addressLooks { return []addressLooks{to("a", 1)} }, 7},
		{"leads there late", func(i int) []addressLooks {
			if i < 5 {
				return []addressLooks{no("a")}
			}
			return []addressLooks{to("a", 1)}
		}, 11},
		{"another address never does", func(int) []addressLooks { return []addressLooks{to("a", 1), no("b")} }, 7},
		{"another address does later", func(i int) []addressLooks {
			if i < 5 {
				return []addressLooks{to("a", 1), no("b")}
			}
			return []addressLooks{to("a", 1), to("b", 1)}
		}, 7},
		{"a pooler has the old address in its cache", func(i int) []addressLooks {
			if i < 5 {
				return []addressLooks{to("a", 1), {address: "b", must: true}}
			}
			return []addressLooks{to("a", 1)}
		}, 11},
		{"an interruption", func(i int) []addressLooks {
			if i == 5 {
				return []addressLooks{no("a")}
			}
			return []addressLooks{to("a", 1)}
		}, 12},
		{"one address wavers", func(i int) []addressLooks {
			if i%4 == 0 {
				return []addressLooks{to("a", 1), wavers("b")}
			}
			return []addressLooks{to("a", 1), to("b", 1)}
		}, 0},
		{"two servers", func(int) []addressLooks { return []addressLooks{to("a", 1), to("b", 2)} }, 0},
		{"another server later", func(i int) []addressLooks { return []addressLooks{to("a", i/6)} }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s successor
			got := 0
			for i := 1; i <= 20 && got == 0; i++ {
				if s.established(c.rounds(i), start.Add(time.Duration(i)*watchInterval)) {
					got = i
				}
			}
			if got != c.want {
				t.Errorf("round %d, want %d", got, c.want)
			}
		})
	}
}

func TestPromotedSince(t *testing.T) {
	o := origin{SystemID: "7", Timeline: 3}
	for _, c := range []struct {
		name  string
		there postgres.Identity
		want  bool
	}{
		{"a promoted server of this cluster", postgres.Identity{SystemID: "7", Timeline: 4}, true},
		{"the old primary", postgres.Identity{SystemID: "7", Timeline: 3}, false},
		{"a replica", postgres.Identity{SystemID: "7", InRecovery: true}, false},
		{"of another cluster", postgres.Identity{SystemID: "8", Timeline: 4}, false},
		{"that does not say of which cluster", postgres.Identity{Timeline: 4}, false},
	} {
		if got := o.promotedSince(c.there); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	if (origin{}).promotedSince(postgres.Identity{Timeline: 1}) {
		t.Error("of a handover of which nothing is known")
	}
}
