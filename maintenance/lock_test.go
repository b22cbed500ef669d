package maintenance

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/plan"
	"github.com/pgbaton/pgbaton/state"
)

var errNotServed = errors.New("a client was not served")

func newLock(t *testing.T, f *membertest.Cluster, name, id string) *clusterLock {
	t.Helper()
	client, err := on(t, f, name).Patroni()
	if err != nil {
		t.Fatal(err)
	}
	return &clusterLock{client: client, log: on(t, f, name).Log, id: id,
		own: entry{Member: name, Kind: api.KindRestart, Since: time.Now().UTC().Truncate(time.Second), Renewed: 1}}
}

func alive(string, entry) (bool, string) { return false, "wait" }
func dead(string, entry) (bool, string)  { return true, "" }

// TestLock: who was there first keeps it; who comes later goes away again without a trace.
func TestLock(t *testing.T) {
	f := membertest.NewCluster(t)
	first, second := newLock(t, f, "m1", "aaaaaaaaaaaa"), newLock(t, f, "m2", "bbbbbbbbbbbb")
	if err := first.take(t.Context(), alive); err != nil {
		t.Fatal(err)
	}
	var locked *lockedError
	if err := second.take(t.Context(), alive); !errors.As(err, &locked) || locked.Member != "m1" || locked.id != first.id {
		t.Errorf("%v", err)
	}
	if runs, err := runsOf(f.Config); err != nil || len(runs) != 1 || runs[first.id].Member != "m1" {
		t.Errorf("%v %v", runs, err)
	}
	if err := first.renew(t.Context()); err != nil {
		t.Error(err)
	}
	if err := second.take(t.Context(), dead); err != nil {
		t.Error(err)
	}
	if err := first.renew(t.Context()); !errors.Is(err, errLockLost) {
		t.Errorf("the first has lost it: %v", err)
	}
	if err := first.renew(t.Context()); !errors.Is(err, errLockLost) {
		t.Errorf("and does not find it again: %v", err)
	}
	if err := second.renew(t.Context()); err != nil {
		t.Error(err)
	}
	if err := second.release(t.Context()); err != nil {
		t.Error(err)
	}
	if runs, err := runsOf(f.Config); err != nil || len(runs) != 0 {
		t.Errorf("left: %v %v", runs, err)
	}
}

// TestLockAnswers: a conflict and a cut connection are asked again, what is not understood is a run all the same, and nothing is left at
// the end.
func TestLockAnswers(t *testing.T) {
	f := membertest.NewCluster(t)
	var patches atomic.Int64
	f.Patched = func(w http.ResponseWriter) bool {
		switch patches.Add(1) {
		case 1:
			membertest.Say(w, http.StatusConflict, "")
			return false
		case 2:
			membertest.Cut(w)
			return false
		}
		return true
	}
	l := newLock(t, f, "m1", "aaaaaaaaaaaa")
	if err := l.take(t.Context(), alive); err != nil || patches.Load() != 3 {
		t.Errorf("%v, after %d calls", err, patches.Load())
	}
	if err := l.release(t.Context()); err != nil || len(f.Config) != 3 {
		t.Errorf("%v, and what is left: %v", err, f.Config)
	}
	f.Change(func() { f.Config[runPrefix+"of a later version"] = "busy" })
	var locked *lockedError
	if err := l.take(t.Context(), alive); !errors.As(err, &locked) || locked.id != "of a later version" {
		t.Errorf("%v", err)
	}
	f.Change(func() {
		for i := range maxRuns {
			f.Config[runPrefix+strconv.Itoa(i)] = map[string]any{}
		}
	})
	if err := l.take(t.Context(), alive); !errors.Is(err, errTooMany) {
		t.Errorf("%v", err)
	}
	f.Patched = func(w http.ResponseWriter) bool {
		membertest.Say(w, http.StatusUnauthorized, "no auth header received")
		return false
	}
	before := time.Now()
	if err := l.take(t.Context(), alive); err == nil || time.Since(before) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(before))
	}
}

// TestSighted: an entry is taken over only when it was seen for longer than a renewal without a change, on this machine's clock.
func TestSighted(t *testing.T) {
	f := membertest.NewCluster(t)
	m := on(t, f, "m1")
	e := entry{Member: "m2", Kind: api.KindRestart, Renewed: 7}
	stale, killed := sighted(m, "aaaaaaaaaaaa", e)
	if stale || !strings.Contains(killed, "`pgbaton restart --resume` on member m2") || !strings.Contains(killed, "1m15s") {
		t.Errorf("%v %s", stale, killed)
	}
	path := m.Config.StateDir + "/" + sightedName
	age := func(by time.Duration, change func(*sighting)) {
		t.Helper()
		seen := map[string]sighting{}
		if err := state.Read(path, &seen); err != nil {
			t.Fatal(err)
		}
		s := seen["aaaaaaaaaaaa"]
		s.Up -= by
		if change != nil {
			change(&s)
		}
		if err := state.Write(path, map[string]sighting{"aaaaaaaaaaaa": s}); err != nil {
			t.Fatal(err)
		}
	}
	age(staleAfter-5*time.Second, nil)
	if stale, _ = sighted(m, "aaaaaaaaaaaa", e); stale {
		t.Error("too early")
	}
	age(6*time.Second, nil)
	if stale, _ = sighted(m, "aaaaaaaaaaaa", e); !stale {
		t.Error("it has stood still for long enough")
	}
	e.Renewed++
	if stale, _ = sighted(m, "aaaaaaaaaaaa", e); stale {
		t.Error("it has stirred")
	}
	age(time.Hour, func(s *sighting) { s.Boot = "another" })
	if stale, _ = sighted(m, "aaaaaaaaaaaa", e); stale {
		t.Error("seen before this machine was started")
	}
	m.Config.StateDir = ""
	if stale, killed = sighted(m, "aaaaaaaaaaaa", e); stale || killed == "" {
		t.Error("without a state directory")
	}
}

// TestSupersede: the entry of a run of this member whose process has ended is taken over at once, with no wait.
func TestSupersede(t *testing.T) {
	f := membertest.NewCluster(t)
	m := on(t, f, "m1")
	old := newRun(m, Request{Kind: api.KindSwitchover, ID: "0123456789ab"}, nil)
	if err := old.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.Order = func(w http.ResponseWriter, _, _ string) {
		f.Change(func() { f.Started["m2"] = time.Now() })
		membertest.Say(w, http.StatusOK, "restarted successfully")
	}
	again := Request{Kind: api.KindRestart, Restart: plan.RestartOptions{Members: []string{"m2"}}}
	if r := Run(t.Context(), m, again, nil); r.Code != member.Refused || r.Refusal != RefusedLocked {
		t.Errorf("the first lives: %+v", r)
	}
	old.held.Release() // as the kernel does of a process that is killed
	if r := Run(t.Context(), m, again, nil); r.Code != member.Done {
		t.Errorf("the first is dead: %+v", r)
	}
}
