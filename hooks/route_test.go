package hooks

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/state"
)

// handover is a pooler that a guard has paused, and a worker that has just become primary.
type handover struct {
	t      *testing.T
	m      *member.Member
	pooler *single.PgBouncer
	began  time.Time
	result chan member.Result
}

// handOver starts one. The worker logs in over the network as the README has it: nothing is said about TLS, and these servers have none.
func handOver(t *testing.T, suite string, pg *single.Postgres, databases string) *handover {
	t.Helper()
	b, err := single.StartPgBouncer(t.Context(), suite, single.PgBouncerOptions{Backend: pg, Databases: databases})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	m := membertest.New(t, pg, b)
	m.Config.Postgres = fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres password=%s", pg.SocketDir, pg.Port, single.Password)
	m.Config.Resume.Timeout = 25 * time.Second
	membertest.Abandoned(t, m, pgb.Guard)
	return &handover{t: t, m: m, pooler: b}
}

func (h *handover) work() {
	h.began, h.result = time.Now(), make(chan member.Result, 1)
	go func() {
		h.result <- Work(context.WithoutCancel(h.t.Context()), h.m, Event{Action: "on_role_change", Role: "primary"}, nil)
	}()
	h.t.Cleanup(func() {
		if r := <-h.result; r.Code != member.Done {
			h.t.Errorf("%d %s", r.Code, r.Decision)
		}
	})
}

// route is the worker's, without the rest of it.
func (h *handover) route() (*route, postgres.Identity) {
	h.t.Helper()
	poolers, _, errs := h.m.Poolers(h.t.Context(), nil)
	h.t.Cleanup(func() { member.CloseAll(poolers) })
	if len(errs) > 0 {
		h.t.Fatal(errs)
	}
	local, err := h.m.Server()
	if err != nil {
		h.t.Fatal(err)
	}
	here, err := member.Identify(h.t.Context(), local)
	if err != nil {
		h.t.Fatal(err)
	}
	r, err := routeOf(h.m, h.m.Log, local, poolers, func() postgres.Identity { return here }, "on_role_change")
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(r.finish)
	return r, here
}

func (h *handover) paused() bool { return membertest.StateOf(h.t, h.pooler).Paused }

// resumed waits for the end of the pause and says how long it took from the worker's start.
func (h *handover) resumed(most time.Duration) time.Duration {
	h.t.Helper()
	membertest.Within(h.t, most, "the pause is over", func() bool { return !h.paused() })
	return time.Since(h.began)
}

// staysPaused fails the test when the pause ends within a while.
func (h *handover) staysPaused(while time.Duration) {
	h.t.Helper()
	for end := time.Now().Add(while); time.Now().Before(end); member.Sleep(h.t.Context(), 20*time.Millisecond) {
		if !h.paused() {
			h.t.Fatalf("resumed %s after the worker's start", time.Since(h.began))
		}
	}
}

var routeSuites = []string{single.SuiteTrixie, single.SuiteSid} // 1.18 does not say whether it is paused

// unused is an address where nobody listens.
func unused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprintf("host=127.99.99.99 port=%d", l.Addr().(*net.TCPAddr).Port)
}

// Of several databases with one address some do not exist any more: that is an answer.
func TestRouteDatabaseIsGone(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	at := fmt.Sprintf("host=%s port=%d", pg.Addr, pg.Port)
	for _, suite := range routeSuites {
		h := handOver(t, suite, pg, "aaa_archive = "+at+" dbname=gone_2019\napp = "+at+" dbname=postgres\n")
		h.work()
		t.Logf("%s: resumed after %s", suite, h.resumed(4*time.Second))
	}
}

// Somebody else writes a new host= and reloads the pooler, 3 s after the promotion.
func TestRouteIsRewritten(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	for _, suite := range routeSuites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			h := handOver(t, suite, pg, "app = "+unused(t)+" dbname=postgres\n")
			h.work()
			h.staysPaused(3 * time.Second)
			config, err := h.pooler.Config()
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for line := range strings.Lines(config) {
				if strings.HasPrefix(line, "app = ") {
					line = fmt.Sprintf("app = host=%s port=%d dbname=postgres\n", pg.Addr, pg.Port)
				}
				lines = append(lines, line)
			}
			if err := h.pooler.RewriteConfig(strings.Join(lines, "")); err != nil {
				t.Fatal(err)
			}
			membertest.Admin(t, h.pooler, "RELOAD")
			t.Logf("resumed %s after the worker's start", h.resumed(4*time.Second))
		})
	}
}

// A name that nobody knows here does not cost the lease.
func TestRouteNameIsUnknown(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	t.Run("beside another", func(t *testing.T) {
		t.Parallel()
		h := handOver(t, single.SuiteTrixie, pg, fmt.Sprintf(
			"app = host=%s port=%d dbname=postgres\nfar = host=pgbaton-far.invalid dbname=postgres\n", pg.Addr, pg.Port))
		h.work()
		h.resumed(routeGrace + 6*time.Second) // a name server may take a second to say that it does not know the name
	})
	t.Run("alone", func(t *testing.T) {
		t.Parallel()
		h := handOver(t, single.SuiteTrixie, pg, "far = host=pgbaton-far.invalid dbname=postgres\n")
		h.work()
		h.resumed(routeUnreachable + 6*time.Second)
	})
}

// inTurn hands connections out in turn, as HAProxy does.
type inTurn struct {
	net.Listener
	mu    sync.Mutex
	to    []string
	turn  int
	count int
	delay time.Duration // of each thing that a client says
	more  time.Duration // on every second connection
}

func handOut(t *testing.T, to ...string) *inTurn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &inTurn{Listener: l, to: to}
	var all sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			address := p.to[p.turn%len(p.to)]
			p.turn++
			p.count++
			delay := p.delay + time.Duration(p.count%2)*p.more
			p.mu.Unlock()
			out, err := net.Dial("tcp", address)
			if err != nil {
				_ = in.Close()
				continue
			}
			all.Go(func() {
				_, _ = io.Copy(in, out)
				_ = in.Close()
			})
			all.Go(func() {
				_, _ = io.Copy(out, late{in, delay})
				_ = out.Close()
			})
		}
	})
	return p
}

// late passes on what it reads after a while.
type late struct {
	io.Reader
	by time.Duration
}

func (l late) Read(b []byte) (int, error) {
	n, err := l.Reader.Read(b)
	time.Sleep(l.by)
	return n, err
}

func (p *inTurn) lead(to ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = to
}

func (p *inTurn) line() string {
	return fmt.Sprintf("app = host=127.0.0.1 port=%d dbname=postgres\n", p.Addr().(*net.TCPAddr).Port)
}

// A proxy that knows two servers for a while, the new primary and one that is none, shows both: the second connection that pgconn makes
// to a server without TLS made all looks meet the same one. Also where the other one refuses.
func TestRouteInTurn(t *testing.T) {
	t.Parallel()
	pg, other := membertest.SharedPostgres(t), membertest.OwnPostgres(t)
	here, there := fmt.Sprintf("%s:%d", pg.Addr, pg.Port), fmt.Sprintf("%s:%d", other.Addr, other.Port)
	for name, to := range map[string][]string{"another server": {there, here}, "nobody": {"127.99.99.99:1", here}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := handOut(t, to...)
			h := handOver(t, single.SuiteSid, pg, proxy.line())
			h.work()
			h.staysPaused(3 * time.Second)
			proxy.lead(here)
			// Twelve looks in a row, of which each begins routeRetry after the last, with what twelve log-ins take under the race detector.
			t.Logf("resumed %s after the worker's start", h.resumed(6*time.Second))
		})
	}
}

// On a machine that is very busy some looks get their answer after a second, and others do not. Those are no second server, and more looks
// would make it worse: each is waited for longer.
func TestRouteOnABusyMachine(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	proxy := handOut(t, fmt.Sprintf("%s:%d", pg.Addr, pg.Port))
	h := handOver(t, single.SuiteSid, pg, proxy.line())
	// A log-in says five things or six: every second one takes more than the second that is waited for at first.
	proxy.mu.Lock()
	proxy.delay, proxy.more = 100*time.Millisecond, 120*time.Millisecond
	proxy.mu.Unlock()
	h.work()
	t.Logf("resumed %s after the worker's start", h.resumed(18*time.Second)) // the worker gives up after 25 s
}

// nameServer answers for every name with one address, which moves.
type nameServer struct {
	net.PacketConn
	mu sync.Mutex
	ip net.IP
}

func serveNames(t *testing.T, ip string) *nameServer {
	t.Helper()
	var c net.PacketConn
	var err error
	for range 20 { // port 53 is resolv.conf's only one; somebody else may have this address
		if c, err = net.ListenPacket(
			"udp",
			fmt.Sprintf("127.%d.%d.%d:53", 64+rand.IntN(64), rand.IntN(256), 1+rand.IntN(254)),
		); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{PacketConn: c, ip: net.ParseIP(ip).To4()}
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	go func() {
		defer close(done)
		question := make([]byte, 512)
		for {
			n, from, err := c.ReadFrom(question)
			if err != nil {
				return
			}
			if answer := s.answer(question[:n]); answer != nil {
				_, _ = c.WriteTo(answer, from)
			}
		}
	}()
	return s
}

func (s *nameServer) lead(ip string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ip = net.ParseIP(ip).To4()
}

// answer is RFC 1035's, to a question of type A; to others there is no data.
func (s *nameServer) answer(question []byte) []byte {
	end := 12
	for end < len(question) && question[end] != 0 {
		end += 1 + int(question[end])
	}
	if end += 5; end > len(question) {
		return nil
	}
	answer := slices.Clone(question[:end])
	binary.BigEndian.PutUint16(answer[2:], 0x8580)
	binary.BigEndian.PutUint16(answer[10:], 0) // no additional records
	if binary.BigEndian.Uint16(question[end-4:]) != 1 {
		return answer
	}
	binary.BigEndian.PutUint16(answer[6:], 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(answer, append([]byte{0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4}, s.ip...)...)
}

// The pooler has a name in its cache that has moved meanwhile: it would connect to the old address until the entry has expired.
func TestRouteNameInThePoolersCache(t *testing.T) {
	pg := membertest.SharedPostgres(t)
	const name = "db.pgbaton.test"
	for _, suite := range routeSuites {
		t.Run(suite, func(t *testing.T) {
			old := membertest.OwnPostgres(t)
			names := serveNames(t, old.Addr)
			h := handOver(t, suite, pg, fmt.Sprintf("postgres = host=%s port=%d dbname=postgres\n", name, pg.Port))
			// Started again with our name server; the cache is filled by a client that meets the old server.
			config, err := h.pooler.Config()
			if err != nil {
				t.Fatal(err)
			}
			resolv := filepath.Join(h.pooler.Dir, "resolv.conf")
			if err := os.WriteFile(resolv, []byte("nameserver "+names.LocalAddr().(*net.UDPAddr).IP.String()+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := h.pooler.RewriteConfig(config + "resolv_conf = " + resolv + "\ndns_max_ttl = 5\n"); err != nil {
				t.Fatal(err)
			}
			h.pooler.Stop()
			if err := h.pooler.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !membertest.Usable(t, h.pooler, 5*time.Second) {
				t.Fatal("the pooler does not reach the old server")
			}
			filled := time.Now()
			membertest.Abandoned(t, h.m, pgb.Guard)
			names.lead(pg.Addr)
			old.Stop()

			r, here := h.route()
			r.names.LookUp = func(context.Context, string) ([]string, error) { return []string{pg.Addr}, nil } // we see it move at once
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			defer cancel()
			why, err := r.wait(ctx)
			took := time.Since(filled)
			if err != nil || why != ledHere {
				t.Fatalf("%q, %v", why, err)
			}
			// In whole seconds, so that one is never too early and one second late.
			if took < 5*time.Second || took > 9*time.Second {
				t.Errorf("the entry lives for 5 s; waited for %s", took)
			}
			membertest.Admin(t, h.pooler, "RESUME")
			t.Logf("the route leads here %s after the cache was filled", took)
			if !whereAClientIs(t, h.pooler).SameServer(here) {
				t.Error("the client is not at the new server")
			}
		})
	}
}

func whereAClientIs(t *testing.T, b *single.PgBouncer) postgres.Identity {
	t.Helper()
	s, err := postgres.Open(b.DSN("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := s.Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	identity, err := conn.Identity(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

// A pooler in front of a pooler: SHOW SERVERS has the second one's process ids, and no connection of it counts as leadsElsewhere.
func TestVerifyThroughAnotherPooler(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	second := membertest.StartPooler(t, single.SuiteTrixie, pg)
	h := handOver(t, single.SuiteTrixie, pg, fmt.Sprintf("postgres = host=%s port=%d dbname=postgres\n", second.Addr, second.Port))
	h.work()
	h.resumed(6 * time.Second)
	c := membertest.Connect(t, h.pooler.DSN("postgres", "postgres"))
	for range 12 { // for as long as the worker verifies
		c.Must("select pg_sleep(0.1)")
	}
	entries, err := state.ReadJournal(h.m.Config.StateDir, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Event == state.EventReconnected {
			t.Errorf("connections were replaced: %+v", e)
		}
	}
}

// A name that moves while the worker waits.
func TestRouteNameMoves(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	h := handOver(t, single.SuiteTrixie, pg, fmt.Sprintf("app = host=db.pgbaton.test port=%d dbname=postgres\n", pg.Port))
	r, _ := h.route()
	const late = 2 * time.Second
	began := time.Now()
	r.names.LookUp = func(context.Context, string) ([]string, error) {
		if time.Since(began) < late {
			return []string{"127.99.99.99"}, nil
		}
		return []string{pg.Addr}, nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	why, err := r.wait(ctx)
	if took := time.Since(began); err != nil || why != ledHere || took < late || took > late+3*time.Second {
		t.Errorf("%q, %v after %s; the name moves after %s", why, err, took, late)
	}
}

// An entry of a "*" line that clients wait for is looked for until it is listed, and then followed.
func TestRouteOfAStarEntry(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	for _, suite := range routeSuites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			proxy := handOut(t, fmt.Sprintf("%s:%d", pg.Addr, pg.Port))
			h := handOver(t, suite, pg, fmt.Sprintf("* = host=127.0.0.1 port=%d\n", proxy.Addr().(*net.TCPAddr).Port))
			membertest.Admin(t, h.pooler, "RESUME")
			c := membertest.Connect(t, h.pooler.DSN("postgres", "postgres"))
			c.Must("select 1")
			membertest.Abandoned(t, h.m, pgb.Guard)
			proxy.lead("127.99.99.99:1")
			waits := make(chan error, 1)
			go func() { waits <- c.Exec("select 1") }()
			membertest.Eventually(t, "the client waits", func() bool { return membertest.StateOf(t, h.pooler).Waiting > 0 })
			h.work()
			h.staysPaused(1500 * time.Millisecond)
			proxy.lead(fmt.Sprintf("%s:%d", pg.Addr, pg.Port))
			h.resumed(4 * time.Second)
			if err := <-waits; err != nil {
				t.Error(err)
			}
		})
	}
}
