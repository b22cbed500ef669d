package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/hooks"
)

// Options are what a server is made of. Runtime is needed.
type Options struct {
	Runtime *hooks.Runtime // Runtime.Config.Serve says where and for whom to listen
	Version string         // of pgbaton, for the document and the metrics
	Calls   Calls          // for tests; the zero value is package hooks

	// Reconciler, when set, has a round every 5 s for as long as the server runs.
	Reconciler Reconciler
}

// Calls are what this server does for its callers: the same functions as the command line's.
type Calls struct {
	Pause  func(context.Context, *hooks.Runtime, hooks.PauseOptions) hooks.Report
	Resume func(context.Context, *hooks.Runtime) hooks.Report
	Reload func(context.Context, *hooks.Runtime, hooks.ReloadOptions) hooks.ReloadReport
	Status func(context.Context, *hooks.Runtime) hooks.Status
}

// Server is the HTTP mode of one member.
type Server struct {
	rt       *hooks.Runtime
	log      *slog.Logger
	calls    Calls
	guard    *guard
	store    *store
	journal  *follower
	metrics  *metrics
	status   *statusCache
	mux      *http.ServeMux
	document *huma.OpenAPI
	routes   []route
	origins  *http.CrossOriginProtection
	slots    chan struct{} // one for each request
	streams  chan struct{} // one for each event stream

	listener   net.Listener
	lock       *os.File
	reconciler Reconciler

	work       context.Context // of operations; ends with the grace time
	endWork    context.CancelFunc
	background context.Context // of everything else; ends last
	endAll     context.CancelFunc
	stopping   chan struct{} // closed: event streams end

	life     sync.Mutex
	ending   bool           // no operation is begun any more
	running  sync.WaitGroup // operations
	others   sync.WaitGroup // what runs in the background
	resuming sync.Mutex

	// Shorter in tests.
	headerTimeout, bodyTimeout, writeTimeout, idleTimeout, heartbeat, resumeWait time.Duration
}

// ErrBusy says that another server works with the same state directory.
var ErrBusy = errors.New("another pgbaton serve works with this state directory")

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

// New checks the configuration, reads what an earlier server has left in the state directory, and listens. It blocks only for name resolution
// and the disk. A configuration that cannot be used, and listening beyond loopback without TLS and authentication, is a [config.Error].
// A server that was made must be served or closed.
func New(o Options) (_ *Server, err error) {
	rt := o.Runtime
	c := rt.Config.Serve
	s := &Server{rt: rt, log: rt.Log.With("hook", "serve"), calls: o.Calls, reconciler: o.Reconciler,
		origins: http.NewCrossOriginProtection(), slots: make(chan struct{}, maxRequests), streams: make(chan struct{}, maxStreams), stopping: make(chan struct{}),
		headerTimeout: headerTimeout, bodyTimeout: bodyTimeout, writeTimeout: writeTimeout, idleTimeout: idleTimeout, heartbeat: heartbeat, resumeWait: 30 * time.Second}
	if rt.Config.StateDir == "" {
		return nil, &config.Error{Name: "state_dir", Problem: "the HTTP mode needs one"}
	}
	if s.calls.Pause == nil {
		s.calls.Pause = hooks.Pause
	}
	if s.calls.Resume == nil {
		s.calls.Resume = hooks.Resume
	}
	if s.calls.Reload == nil {
		s.calls.Reload = hooks.Reload
	}
	if s.calls.Status == nil {
		s.calls.Status = hooks.GetStatus
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
	s.work, s.endWork = context.WithCancel(context.Background())
	s.background, s.endAll = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.lock, err = lockDir(rt.Config.StateDir); err != nil {
		return nil, err
	}
	hooks.SweepState(rt.Config.StateDir)
	s.store = openStore(rt.Config.StateDir, s.log)
	s.status = &statusCache{ask: func(ctx context.Context) hooks.Status { return s.calls.Status(ctx, rt) }, log: s.log}
	s.metrics = newMetrics(o.Version, s.log, rt.Config.Pause.Lease, func() (hooks.Status, error) {
		status, _, err := s.status.get(s.background, metricsAge)
		return status, err
	})
	s.journal = openFollower(rt.Config.StateDir, s.log, s.metrics.journal)
	if err = s.register(o.Version); err != nil {
		return nil, err
	}
	tcp, err := net.ListenTCP("tcp", address)
	if err != nil {
		return nil, err
	}
	s.listener = &listener{Listener: tcp, tls: s.guard.tlsConfig()}
	return s, nil
}

// mayListen: who is not on this machine must prove who he is, and must not be overheard.
func mayListen(address *net.TCPAddr, c config.Serve) error {
	if address.IP.IsLoopback() {
		return nil
	}
	fail := func(problem, hint string) error {
		return &config.Error{Name: "serve.listen", Problem: fmt.Sprintf("%s leads beyond this machine, and %s", c.Listen, problem), Hint: hint}
	}
	switch {
	case c.CertFile == "":
		return fail("TLS is not set up", "set serve.cert_file and serve.key_file, or listen on 127.0.0.1:8009")
	case c.TokensFile == "" && c.ClientCAFile == "":
		return fail("nobody has to prove who he is", "set serve.tokens_file or serve.client_ca_file, or listen on 127.0.0.1:8009")
	}
	return nil
}

// lockDir keeps a second server from the same files. The lock ends with the process.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "serve.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", dir, ErrBusy)
		}
		return nil, err
	}
	return f, nil
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close lets go of what New has taken, of a server that is not served.
func (s *Server) Close() {
	s.endWork()
	s.endAll()
	if s.listener != nil {
		_ = s.listener.Close()
	}
	if s.lock != nil {
		_ = s.lock.Close()
	}
}

const (
	shutdownTimeout = 3 * time.Second  // for answers that are under way at the end
	cancelTimeout   = 10 * time.Second // for an operation to take itself back when the grace time is over
)

// Serve answers until the context ends, and then ends gracefully: no operation is begun any more (503), those that run have the grace time of
// serve.grace, after which they are cancelled; event streams end; answers under way are finished. It blocks until all that is done, and
// returns nil then. A pause of ours stands on: its keeper is a process of its own. The error is one of the listener.
func (s *Server) Serve(ctx context.Context) error {
	defer s.Close()
	server := &http.Server{
		Handler: s, ReadHeaderTimeout: s.headerTimeout, WriteTimeout: s.writeTimeout, IdleTimeout: s.idleTimeout, MaxHeaderBytes: maxHeader - 4096, // net/http adds 4 KiB
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), ConnContext: withConn, DisableGeneralOptionsHandler: true,
	}
	s.others.Go(func() { s.guard.watch(s.background) })
	s.others.Go(func() { s.store.saveOften(s.background) })
	s.others.Go(func() { s.journal.run(s.background) })
	if s.reconciler != nil {
		s.others.Go(func() { s.reconcile(s.background) })
	}
	s.recover(s.background)
	s.log.Info("listening", "address", s.Addr().String(), "tls", s.rt.Config.Serve.CertFile != "", "authentication", !s.guard.open())
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(s.listener) }()
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	s.life.Lock()
	s.ending = true
	s.life.Unlock()
	s.log.Info("ending: no operation is begun any more", "grace", s.rt.Config.Serve.Grace)
	if !waitFor(&s.running, s.rt.Config.Serve.Grace) {
		s.log.Warn("the grace time is over: cancelling what runs")
		s.endWork()
		waitFor(&s.running, cancelTimeout)
	}
	close(s.stopping)
	answers, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if server.Shutdown(answers) != nil {
		_ = server.Close()
	}
	s.endAll()
	s.others.Wait()
	s.status.land()
	if saved := s.store.save(); saved != nil {
		s.log.Error("cannot write the operations; a restart of serve would not know them", "error", saved)
	}
	s.log.Info("ended")
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

// waitFor reports whether all were done within the limit.
func waitFor(group *sync.WaitGroup, limit time.Duration) bool {
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}
