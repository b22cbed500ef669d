package hooks

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// fakePatroni answers GET /leader and GET /config as 4.0.7 does. A real one does not lose its lock, or fall silent, on demand.
type fakePatroni struct {
	*httptest.Server
	mu       sync.Mutex
	lost     bool
	state    string
	seen     time.Duration // age of dcs_last_seen
	seenAt   time.Time     // or this, once and not again
	silent   chan struct{} // not nil: no answer until it is closed
	unseen   bool          // the last look into the DCS failed, and every further one hangs
	ttl      int
	loopWait int
}

func newFakePatroni(t *testing.T, rt *Runtime, state string) *fakePatroni {
	t.Helper()
	f := &fakePatroni{state: state, ttl: 30, loopWait: 10}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Server.Close)
	rt.Config.Patroni.URL = f.URL
	return f
}

func (f *fakePatroni) set(change func(*fakePatroni)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakePatroni) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	silent := f.silent
	if f.unseen && r.URL.Path == "/config" {
		silent = make(chan struct{}) // it asks the DCS
	}
	f.mu.Unlock()
	if silent != nil {
		select {
		case <-silent:
		case <-r.Context().Done():
		}
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.URL.Path == "/config" {
		fmt.Fprintf(w, `{"ttl": %d, "loop_wait": %d, "retry_timeout": 10}`, f.ttl, f.loopWait)
		return
	}
	if f.lost {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	seen := f.seenAt
	if seen.IsZero() {
		seen = time.Now().Add(-f.seen)
	}
	fmt.Fprintf(w, `{"state": %q, "role": "primary", "server_version": 170005, "timeline": 1, "dcs_last_seen": %d, "cluster_unlocked": %t,
 "database_system_identifier": "1", "patroni": {"version": "4.0.7", "scope": "demo", "name": "node1"}}`, f.state, seen.Unix(), f.unseen)
}
