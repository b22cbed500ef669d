package membertest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

// Cluster answers as two Patronis 4.0.7, m1 and m2, of one cluster do: for answers that a real one does not give on demand. Its fields are
// changed within [Cluster.Change] while somebody asks.
type Cluster struct {
	mu       sync.Mutex
	Servers  map[string]*httptest.Server // by member
	Leader   string
	Version  string // of Patroni
	Timeline int
	Started  map[string]time.Time // when the members' servers were
	Config   map[string]any       // the dynamic configuration
	orders   []string

	// Order is what a POST does, and its answer; it is called without the lock.
	Order func(w http.ResponseWriter, name, path string)
	// Patched is called before a PATCH is done; false: it is not, and the handler has answered.
	Patched func(w http.ResponseWriter) bool
}

// NewCluster starts one that m1 leads, on timeline 3. The test ends it.
func NewCluster(t *testing.T) *Cluster {
	t.Helper()
	f := &Cluster{Servers: map[string]*httptest.Server{}, Leader: "m1", Timeline: 3, Version: "4.0.7", Started: map[string]time.Time{},
		Config: map[string]any{"ttl": 20, "loop_wait": 0.2, "retry_timeout": 3}}
	for _, name := range []string{"m1", "m2"} {
		f.Started[name] = time.Now().Add(-time.Hour)
		f.Servers[name] = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.serve(w, r, name) }))
		t.Cleanup(f.Servers[name].Close)
	}
	return f
}

// Change does something to it.
func (f *Cluster) Change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// Orders are the POSTs so far, "m2/restart".
func (f *Cluster) Orders() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.orders)
}

func (f *Cluster) serve(w http.ResponseWriter, r *http.Request, name string) {
	if r.Method == http.MethodPost {
		f.Change(func() { f.orders = append(f.orders, name+r.URL.Path) })
		f.Order(w, name, r.URL.Path)
		return
	}
	if r.Method == http.MethodPatch {
		if f.Patched != nil && !f.Patched(w) {
			return
		}
		var change map[string]any
		if err := json.NewDecoder(r.Body).Decode(&change); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		merge(f.Config, change)
		_ = json.NewEncoder(w).Encode(f.Config)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch r.URL.Path {
	case "/config":
		_ = json.NewEncoder(w).Encode(f.Config)
	case "/cluster":
		var members []map[string]any
		for _, name := range []string{"m1", "m2"} {
			row := map[string]any{"name": name, "role": "replica", "state": "streaming", "api_url": f.Servers[name].URL + "/patroni",
				"host": "127.0.0.1", "port": 1, "timeline": f.Timeline, "lag": 0}
			if name == f.Leader {
				row["role"], row["state"] = "leader", "running"
			}
			members = append(members, row)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"members": members, "scope": "demo"})
	default:
		answer := map[string]any{"state": "running", "role": "replica", "server_version": 170005, "timeline": f.Timeline,
			"postmaster_start_time": f.Started[name].Format("2006-01-02 15:04:05.999999-07:00"), "replication_state": "streaming",
			"xlog":    map[string]any{"received_location": 1000, "replayed_location": 1000, "paused": false},
			"patroni": map[string]any{"version": f.Version, "scope": "demo", "name": name}}
		if name == f.Leader {
			answer["role"], answer["xlog"] = "primary", map[string]any{"location": 1000}
			delete(answer, "replication_state")
		} else {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(answer)
	}
}

// merge is Patroni's patch_config.
func merge(config, change map[string]any) {
	for key, value := range change {
		into, both := config[key].(map[string]any)
		from, isMap := value.(map[string]any)
		switch {
		case value == nil:
			delete(config, key)
		case both && isMap:
			copied := maps.Clone(into)
			merge(copied, from)
			config[key] = copied
		default:
			config[key] = value
		}
	}
}

// Say answers with a text, as Patroni does.
func Say(w http.ResponseWriter, status int, text string) {
	w.WriteHeader(status)
	fmt.Fprint(w, text)
}

// Cut ends the connection without an answer.
func Cut(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}
