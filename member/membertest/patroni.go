package membertest

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/member"
)

// Patroni answers GET /leader, GET /config and GET /cluster as 4.0.7 does. A real one does not lose its lock, or fall silent, on demand.
type Patroni struct {
	*httptest.Server
	mu       sync.Mutex
	Lost     bool
	state    string
	Seen     time.Duration // age of dcs_last_seen
	SeenAt   time.Time     // or this, once and not again
	Silent   chan struct{} // not nil: no answer until it is closed
	Unseen   bool          // the last look into the DCS failed, and every further one hangs
	Asked    atomic.Int32  // questions, answered or not
	Version  string        // "" is 4.0.7
	Cluster  string        // body of GET /cluster; empty: it does not answer that
	ttl      int
	loopWait int
}

func NewPatroni(t *testing.T, m *member.Member, state string) *Patroni {
	t.Helper()
	f := &Patroni{state: state, ttl: 30, loopWait: 10}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Server.Close)
	m.Config.Patroni.URL = f.URL
	Tell(t, m)
	return f
}

func (f *Patroni) Set(change func(*Patroni)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *Patroni) serve(w http.ResponseWriter, r *http.Request) {
	f.Asked.Add(1)
	f.mu.Lock()
	silent := f.Silent
	if f.Unseen && r.URL.Path == "/config" {
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
	if r.URL.Path == "/cluster" {
		if f.Cluster == "" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		fmt.Fprint(w, f.Cluster)
		return
	}
	if f.Lost {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	seen := f.SeenAt
	if seen.IsZero() {
		seen = time.Now().Add(-f.Seen)
	}
	fmt.Fprintf(w, `{"state": %q, "role": "primary", "server_version": 170005, "timeline": 1, "dcs_last_seen": %d, "cluster_unlocked": %t,
 "database_system_identifier": "1", "patroni": {"version": %q, "scope": "demo", "name": "node1"}}`, f.state, seen.Unix(), f.Unseen, cmp.Or(f.Version, "4.0.7"))
}
