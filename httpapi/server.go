package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/follow"
	"github.com/pgbaton/pgbaton/health"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/routing"

	"github.com/danielgtaylor/huma/v2"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/operation"
)

// Options are what a server is made of. Member is needed.
type Options struct {
	Member  *member.Member  // its Config.Serve says where and for whom to listen
	Version string          // of pgbaton, for the document and the metrics
	Calls   operation.Calls // for tests; the zero value is what the command line calls

	Check func(context.Context, *member.Member) api.CheckReport // for tests; nil is health.Check

	// Reconciler, when set, has a round every 5 s for as long as the server runs.
	Reconciler Reconciler
}

// Server is the HTTP mode of one member.
type Server struct {
	member     *member.Member
	log        *slog.Logger
	guard      *guard
	operations *operation.Runner
	metrics    *metrics
	status     *statusCache
	check      checkCache
	mux        *http.ServeMux
	document   *huma.OpenAPI
	routes     []route
	origins    *http.CrossOriginProtection
	slots      chan struct{} // one for each request of a known caller
	reserved   chan struct{} // further ones, for what changes something
	streams    chan struct{} // one for each event stream
	routeTurns chan struct{} // one for each look at the route

	lookAlong func(ctx context.Context, address string, looks int) (api.RouteReport, error)

	listener   *listener
	reconciler Reconciler
	follow     *follow.Watcher // nil: no pooler stands beside this member

	primaryRoute func() follow.Route        // what load balancers are told
	replicaRoute func(context.Context) bool // and of readers

	background context.Context // of what goes on beside requests; ends last
	endAll     context.CancelFunc
	stopping   chan struct{} // closed: event streams end

	others sync.WaitGroup // what runs in the background

	// Shorter in tests.
	headerTimeout, bodyTimeout, writeTimeout, openTimeout, idleTimeout, heartbeat, resumeWait time.Duration
}

// New checks the configuration, reads what an earlier server has left in the state directory, and listens. It blocks only for name
// resolution and the disk. A configuration that cannot be used, and listening beyond loopback without TLS and authentication, is a
// [config.Error]. A server that was made must be served or closed.
func New(o Options) (_ *Server, err error) {
	m := o.Member
	c := m.Config.Serve
	s := &Server{
		member:     m,
		log:        m.Log.With("hook", "serve"),
		reconciler: o.Reconciler,
		follow:     follow.NewWatcher(m),
		origins:    http.NewCrossOriginProtection(),
		slots:      make(chan struct{}, maxRequests-reservedRequests),
		reserved: make(chan struct{},
			reservedRequests),
		streams:       make(chan struct{}, maxStreams),
		routeTurns:    make(chan struct{}, routeTurns),
		lookAlong:     routing.NewLooker(m).Look,
		stopping:      make(chan struct{}),
		headerTimeout: headerTimeout,
		bodyTimeout:   bodyTimeout,
		writeTimeout:  writeTimeout,
		openTimeout:   openTimeout,
		idleTimeout:   idleTimeout,
		heartbeat:     heartbeat,
		resumeWait:    30 * time.Second,
	}
	if m.Config.StateDir == "" {
		return nil, &config.Error{Name: "state_dir", Problem: "the HTTP mode needs one"}
	}
	address, err := net.ResolveTCPAddr("tcp", c.Listen)
	if err != nil {
		return nil, &config.Error{Name: "serve.listen", Problem: "cannot be resolved", Err: err}
	}
	if err := mayListen(address, c); err != nil {
		return nil, err
	}
	if s.guard, err = newGuard(c, s.log); err != nil {
		return nil, err
	}
	if s.guard.open() {
		s.log.Warn("anybody on this machine, or in this pod, may operate: set serve.tokens_file", "listen", c.Listen)
	}
	s.background, s.endAll = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	status := o.Calls.Status
	if status == nil {
		status = health.Of
	}
	s.status = &statusCache{ask: func(ctx context.Context) health.Status { return status(ctx, m) }, log: s.log}
	check := o.Check
	if check == nil {
		check = health.Check
	}
	s.check = checkCache{turn: make(chan struct{}, 1), make: func(ctx context.Context) api.CheckReport { return check(ctx, m) }}
	s.metrics = newMetrics(o.Version, s.log, m.Config.Pause.Lease, func() (health.Status, error) {
		status, _, err := s.status.get(s.background, metricsAge)
		return status, err
	})
	s.operations, err = operation.Open(operation.Options{Member: m, Log: s.log, Calls: o.Calls, Entry: s.metrics.journal,
		Changed: s.status.spoil,
		Ended: func(o operation.Operation) {
			if p := failed(o); p != nil {
				s.metrics.errors.WithLabelValues(p.Class).Inc()
			}
		}})
	if err != nil {
		return nil, err
	}
	if err = s.register(o.Version); err != nil {
		return nil, err
	}
	tcp, err := net.ListenTCP("tcp", address)
	if err != nil {
		return nil, err
	}
	drops := &dropLog{log: s.log, count: func(reason string) { s.metrics.dropped.WithLabelValues(reason).Inc() },
		logged: map[string]time.Time{}, since: map[string]int{}}
	s.listener = &listener{Listener: tcp, tls: s.guard.tlsConfig(), open: map[*conn]bool{}, dropped: drops.dropped}
	return s, nil
}

// mayListen: who is not on this machine must prove who he is, and must not be overheard.
func mayListen(address *net.TCPAddr, c config.Serve) error {
	if address.IP.IsLoopback() {
		return nil
	}
	fail := func(problem, hint string) error {
		return &config.Error{
			Name:    "serve.listen",
			Problem: fmt.Sprintf("%s leads beyond this machine, and %s", c.Listen, problem),
			Hint:    hint,
		}
	}
	switch {
	case c.CertFile == "":
		return fail("TLS is not set up", "set serve.cert_file and serve.key_file, or listen on 127.0.0.1:8009")
	case c.TokensFile == "" && c.ClientCAFile == "":
		return fail("nobody has to prove who he is", "set serve.tokens_file or serve.client_ca_file, or listen on 127.0.0.1:8009")
	}
	return nil
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close lets go of what New has taken, of a server that is not served.
func (s *Server) Close() {
	s.endAll()
	if s.listener != nil {
		_ = s.listener.Close()
	}
	if s.operations != nil {
		s.operations.Close()
	}
}

// shutdownTimeout is for answers that are under way at the end.
const shutdownTimeout = 3 * time.Second

// Serve answers until the context ends, and then ends gracefully: no operation is begun any more (503), those that run have the grace time
// of serve.grace, after which they are cancelled; event streams end; answers under way are finished. It blocks until all that is done, and
// returns nil then. A pause of ours stands on: its keeper is a process of its own. The error is one of the listener.
func (s *Server) Serve(ctx context.Context) error {
	defer s.Close()
	server := &http.Server{
		Handler: s, ReadHeaderTimeout: s.headerTimeout, WriteTimeout: s.writeTimeout, IdleTimeout: s.idleTimeout,
		MaxHeaderBytes: maxHeader - 4096, // net/http adds 4 KiB
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), ConnContext: withConn, ConnState: s.listener.state,
		DisableGeneralOptionsHandler: true,
	}
	s.others.Go(func() { s.guard.watch(s.background) })
	if s.reconciler != nil {
		s.others.Go(func() { s.reconcile(s.background) })
	}
	if s.follow != nil {
		s.others.Go(func() { s.follow.Run(s.background) })
	}
	if s.member.Recheck != nil {
		s.others.Go(func() { s.recheck(s.background) })
	}
	s.operations.Start()
	s.log.Info("listening", "address", s.Addr().String(), "tls", s.member.Config.Serve.CertFile != "", "authentication", !s.guard.open())
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(s.listener) }()
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	s.log.Info("shutting down: no operation is started any more", "grace", s.member.Config.Serve.Grace)
	s.operations.Stop(s.member.Config.Serve.Grace)
	close(s.stopping)
	answers, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if server.Shutdown(answers) != nil {
		_ = server.Close()
	}
	s.endAll()
	s.others.Wait()
	s.status.land()
	s.operations.Close()
	s.log.Info("ended")
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}
