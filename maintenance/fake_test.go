package maintenance

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/member"
)

// fakeCluster answers as two Patronis 4.0.7, m1 and m2, of one cluster do: for answers that a real one does not give on demand.
type fakeCluster struct {
	t       *testing.T
	mu      sync.Mutex
	servers map[string]*httptest.Server
	leader  string
	version string
	line    int // timeline
	started map[string]time.Time
	config  map[string]any
	orders  []string // POSTs

	// order is what a POST does, and its answer; it is called without the lock.
	order func(w http.ResponseWriter, name, path string)
	// patched is called before a PATCH is done; false: it is not, and the handler has answered.
	patched func(w http.ResponseWriter) bool
}

func newFakeCluster(t *testing.T) *fakeCluster {
	t.Helper()
	f := &fakeCluster{t: t, servers: map[string]*httptest.Server{}, leader: "m1", line: 3, version: "4.0.7", started: map[string]time.Time{},
		config: map[string]any{"ttl": 20, "loop_wait": 0.2, "retry_timeout": 3}}
	for _, name := range []string{"m1", "m2"} {
		f.started[name] = time.Now().Add(-time.Hour)
		f.servers[name] = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.serve(w, r, name) }))
		t.Cleanup(f.servers[name].Close)
	}
	return f
}

func (f *fakeCluster) on(name string) *member.Member {
	f.t.Helper()
	c := &config.Config{StateDir: f.t.TempDir()}
	c.Patroni.URL, c.Patroni.Name = f.servers[name].URL, name
	return &member.Member{Config: c, Log: slog.New(slog.NewTextHandler(f.t.Output(), nil)), Self: []string{os.Args[0]}}
}

func (f *fakeCluster) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *fakeCluster) ordered() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.orders
}

func (f *fakeCluster) serve(w http.ResponseWriter, r *http.Request, name string) {
	if r.Method == http.MethodPost {
		f.change(func() { f.orders = append(f.orders, name+r.URL.Path) })
		f.order(w, name, r.URL.Path)
		return
	}
	if r.Method == http.MethodPatch {
		if f.patched != nil && !f.patched(w) {
			return
		}
		var change map[string]any
		if err := json.NewDecoder(r.Body).Decode(&change); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		merge(f.config, change)
		_ = json.NewEncoder(w).Encode(f.config)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch r.URL.Path {
	case "/config":
		_ = json.NewEncoder(w).Encode(f.config)
	case "/cluster":
		var members []map[string]any
		for _, name := range []string{"m1", "m2"} {
			row := map[string]any{"name": name, "role": "replica", "state": "streaming", "api_url": f.servers[name].URL + "/patroni",
				"host": "127.0.0.1", "port": 1, "timeline": f.line, "lag": 0}
			if name == f.leader {
				row["role"], row["state"] = "leader", "running"
			}
			members = append(members, row)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"members": members, "scope": "demo"})
	default:
		answer := map[string]any{"state": "running", "role": "replica", "server_version": 170005, "timeline": f.line,
			"postmaster_start_time": f.started[name].Format("2006-01-02 15:04:05.999999-07:00"), "replication_state": "streaming",
			"xlog":    map[string]any{"received_location": 1000, "replayed_location": 1000, "paused": false},
			"patroni": map[string]any{"version": f.version, "scope": "demo", "name": name}}
		if name == f.leader {
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

func say(w http.ResponseWriter, status int, text string) {
	w.WriteHeader(status)
	fmt.Fprint(w, text)
}

// cut ends the connection without an answer.
func cut(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}
