package hooks

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/routing"
)

// agentOf answers as the serve beside a pooler does, which logs in to what the pooler calls its addresses.
func agentOf(t *testing.T, m *member.Member) (server *httptest.Server, asked *atomic.Int32) {
	t.Helper()
	asked = &atomic.Int32{}
	looker := routing.NewLooker(m)
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Authorization") != "Bearer sixteen characters" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		looks, _ := strconv.Atoi(r.FormValue("looks"))
		report, err := looker.Look(r.Context(), r.FormValue("address"), looks)
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_ = json.NewEncoder(w).Encode(report)
	}))
	t.Cleanup(server.Close)
	return server, asked
}

// The pooler leads to an address that cannot be seen from the new primary: its agent sees it. While that leads to the old primary, nobody
// is resumed.
func TestRouteByAgent(t *testing.T) {
	t.Parallel()
	old := membertest.OwnPostgres(t)
	primary, err := single.StartStandby(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(primary.Close)
	route := membertest.NewRoute(t, old)
	h := handOver(t, single.SuiteTrixie, primary, fmt.Sprintf("postgres = host=%s port=%d", route.Addr, route.Port))
	beside := membertest.New(t, primary, h.pooler)
	beside.Config.Postgres = "user=postgres dbname=postgres sslmode=disable password=" + single.Password
	server, asked := agentOf(t, beside)
	h.m.Config.Poolers[0].Agent = server.URL
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("sixteen characters\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.m.Config.Members = config.Members{TokenFile: token}
	if err := primary.Exec(t.Context(), "select pg_promote()"); err != nil {
		t.Fatal(err)
	}
	r, _ := h.route()
	went := make(chan string, 1)
	go func() {
		why, err := r.wait(t.Context())
		if err != nil {
			why = err.Error()
		}
		r.finish()
		went <- why
	}()
	membertest.Eventually(t, "the agent is asked again and again", func() bool { return asked.Load() > 5 })
	select {
	case why := <-went:
		t.Fatalf("resumed while the pooler leads to the old primary: %s", why)
	default:
	}
	route.Lead(primary)
	select {
	case why := <-went:
		if why != ledHere {
			t.Errorf("%q, want %q", why, ledHere)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the route leads here, and nobody says so")
	}
}

// An agent that does not answer delays a resume by some seconds, and then the route is looked at from here.
func TestRouteWithoutItsAgent(t *testing.T) {
	t.Parallel()
	pg := membertest.OwnPostgres(t)
	h := handOver(t, single.SuiteTrixie, pg, fmt.Sprintf("postgres = host=%s port=%d", pg.Addr, pg.Port))
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	h.m.Config.Poolers[0].Agent = server.URL
	r, _ := h.route()
	began := time.Now()
	why, err := r.wait(t.Context())
	r.finish()
	if err != nil || why != ledHere {
		t.Errorf("%q, %v", why, err)
	}
	if took := time.Since(began); took < agentMost {
		t.Errorf("looked from here after %s already", took)
	}
}

// What an agent looks at are the addresses of its own poolers; another one has no looks.
func TestAgentLooksAtItsPoolersOnly(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	b, err := single.StartPgBouncer(t.Context(), single.SuiteTrixie, single.PgBouncerOptions{Backend: pg, Databases: fmt.Sprintf(
		"postgres = host=%s port=%d\nsocket = host=%s port=%d dbname=postgres\nnobody = host=127.0.0.1 port=1",
		pg.Addr,
		pg.Port,
		pg.SocketDir,
		pg.Port,
	)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	m := membertest.New(t, pg, b)
	m.Config.Postgres = "user=postgres dbname=postgres sslmode=disable password=" + single.Password
	looker := routing.NewLooker(m)
	report, err := looker.Look(t.Context(), "", 2)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, a := range report.Addresses {
		if len(a.Looks) != 2 {
			t.Errorf("%s: %d looks", a.Address, len(a.Looks))
		}
		for _, l := range a.Looks {
			seen[a.Address] = l.Failed
			if l.Failed == "" && (l.SystemID == "" || l.PostmasterStart.IsZero()) {
				t.Errorf("%s: %+v", a.Address, l)
			}
			if strings.Contains(l.Error, single.Password) {
				t.Errorf("%s: the password is told", a.Address)
			}
		}
	}
	tcp, socket := fmt.Sprintf("%s:%d", pg.Addr, pg.Port), fmt.Sprintf("%s:%d", pg.SocketDir, pg.Port)
	if failed, ok := seen[tcp]; !ok || failed != "" {
		t.Errorf("over TCP: %v", seen)
	}
	if failed, ok := seen[socket]; !ok || failed != "" {
		t.Errorf("over the socket: %v", seen)
	}
	if seen["127.0.0.1:1"] != "refused" || len(seen) != 3 {
		t.Errorf("all: %v", seen)
	}
	if one, err := looker.Look(t.Context(), "127.0.0.1:22", 1); err != nil || len(one.Addresses) != 0 {
		t.Errorf("an address that no pooler has: %+v, %v", one, err)
	}
}
