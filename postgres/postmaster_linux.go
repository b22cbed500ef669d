package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mitchellh/go-ps"
	"golang.org/x/sys/unix"
)

// reapInterval is how often Gone looks whether a postmaster that has exited was reaped: a signal to no
// purpose, 1 µs.
const reapInterval = 2 * time.Millisecond

// Postmaster is a server's first process, held by a pidfd (Linux 5.3): it is this process for ever, whatever
// becomes of its pid.
type Postmaster struct {
	file *os.File
	raw  syscall.RawConn // of file: Close in another goroutine does not pull the descriptor away
	pid  int
}

// ZombieError says that the process has exited and nobody has reaped it: its parent is gone and the container's first
// process does not reap, or its parent does not wait for it. Patroni takes a zombie for a running server.
type ZombieError struct{ PID int }

func (e *ZombieError) Error() string {
	return fmt.Sprintf("postgres: postmaster %d has exited but nobody reaps it; is there an init (tini, dumb-init) above it?", e.PID)
}

// Postmaster returns the process that this connection leads to. It must run in our pid namespace, and the
// connection must be over a Unix socket or to an address of this host. It blocks for two round trips.
//
// How it is known (PostgreSQL 17 and 18, Linux 6): the session's process has the postmaster for its
// parent. The pidfd is opened first, then the parent is looked at, and then the session answers once more, so it was
// not a reused pid that was looked at. Besides, on a Unix socket SO_PEERCRED names the process that listens,
// which is the postmaster; it is 0 when that is in a pid namespace which we cannot see. By TCP,
// postmaster.pid in the data directory must say the same, which needs pg_read_all_settings and a
// file that we can read.
func (c *Conn) Postmaster(ctx context.Context) (_ *Postmaster, err error) {
	backend, err := c.backendPID(ctx)
	if err != nil {
		return nil, err
	}
	said, err := c.listener(ctx)
	if err != nil {
		return nil, err
	}
	fd, err := unix.PidfdOpen(said, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.EINVAL) { // before Linux 5.10
		if fd, err = unix.PidfdOpen(said, 0); err == nil {
			err = unix.SetNonblock(fd, true)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("postgres: pidfd of process %d: %w", said, err)
	}
	p := &Postmaster{file: os.NewFile(uintptr(fd), "pidfd"), pid: said}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	if p.raw, err = p.file.SyscallConn(); err != nil {
		return nil, fmt.Errorf("postgres: pidfd: %w", err)
	}
	if err := named(said, "postgres", "postmaster"); err != nil {
		return nil, err
	}
	child, err := ps.FindProcess(backend)
	if err != nil {
		return nil, fmt.Errorf("postgres: session's process %d: %w", backend, err)
	}
	if child == nil || child.PPid() != said {
		return nil, fmt.Errorf("postgres: process %d is not the parent of this session's process %d; is the server in another pid namespace?", said, backend)
	}
	if again, err := c.backendPID(ctx); err != nil || again != backend {
		return nil, errors.Join(errors.New("postgres: the session's process changed; is there a pooler in between?"), err)
	}
	return p, nil
}

// value runs a statement that answers with one row of one column.
func (c *Conn) value(ctx context.Context, sql string) (*row, error) {
	results, err := c.query(ctx, sql)
	if err != nil {
		return nil, err
	}
	r, err := rows(results, 0, 1)
	if err != nil {
		return nil, err
	}
	if len(r) != 1 {
		return nil, fmt.Errorf("postgres: no answer to %q", sql)
	}
	return r[0], nil
}

func (c *Conn) backendPID(ctx context.Context) (int, error) {
	r, err := c.value(ctx, "select pg_backend_pid()")
	if err != nil {
		return 0, err
	}
	pid := int(r.int())
	return pid, r.err
}

// listener returns the pid of the process that listens at the other end.
func (c *Conn) listener(ctx context.Context) (int, error) {
	switch raw := c.raw.(type) {
	case *net.UnixConn:
		rc, err := raw.SyscallConn()
		if err != nil {
			return 0, fmt.Errorf("postgres: %w", err)
		}
		var cred *unix.Ucred
		var credErr error
		if err := rc.Control(func(fd uintptr) {
			cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		}); err != nil {
			return 0, fmt.Errorf("postgres: %w", err)
		}
		if credErr != nil {
			return 0, fmt.Errorf("postgres: SO_PEERCRED: %w", credErr)
		}
		if cred.Pid <= 0 {
			return 0, errors.New("postgres: the server runs in a pid namespace that we cannot see")
		}
		return int(cred.Pid), nil
	case *net.TCPConn:
		to, _ := raw.RemoteAddr().(*net.TCPAddr)
		from, _ := raw.LocalAddr().(*net.TCPAddr)
		if to == nil || from == nil || !to.IP.IsLoopback() && !to.IP.Equal(from.IP) {
			return 0, fmt.Errorf("postgres: %v is not this host", raw.RemoteAddr())
		}
		r, err := c.value(ctx, "select current_setting('data_directory')")
		if err != nil {
			return 0, err
		}
		path := filepath.Join(r.text(), "postmaster.pid")
		b, err := os.ReadFile(path)
		if err != nil {
			return 0, fmt.Errorf("postgres: %w", err)
		}
		first, _, _ := strings.Cut(string(b), "\n")
		pid, err := strconv.Atoi(strings.TrimSpace(first))
		if err != nil || pid <= 0 {
			return 0, fmt.Errorf("postgres: %s holds no process id", path)
		}
		return pid, nil
	default:
		return 0, fmt.Errorf("postgres: a connection of type %T leads to no process", raw)
	}
}

// named checks what the process runs, by the name of its executable.
func named(pid int, names ...string) error {
	p, err := ps.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("postgres: process %d: %w", pid, err)
	}
	if p == nil {
		return fmt.Errorf("postgres: process %d: %w", pid, os.ErrProcessDone)
	}
	for _, n := range names {
		if p.Executable() == n {
			return nil
		}
	}
	return fmt.Errorf("postgres: process %d is %q, not a postmaster", pid, p.Executable())
}

// PID is the process id in our namespace, for logs.
func (p *Postmaster) PID() int { return p.pid }

// FastShutdown sends SIGINT: sessions are ended, a checkpoint is written, standbys are waited for. It does not wait;
// see [Postmaster.Gone]. The error is [os.ErrProcessDone] when the process was reaped already, and EPERM
// when we are not its user.
func (p *Postmaster) FastShutdown() error {
	if err := p.signal(unix.SIGINT); err != nil {
		return fmt.Errorf("postgres: fast shutdown of postmaster %d: %w", p.pid, err)
	}
	return nil
}

func (p *Postmaster) signal(s unix.Signal) error {
	var err error
	if cerr := p.raw.Control(func(fd uintptr) { err = unix.PidfdSendSignal(int(fd), s, nil, 0) }); cerr != nil {
		return cerr
	}
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// Gone blocks until the process has exited and was reaped, and returns nil. When ctx ends before: a
// [*ZombieError] when it has exited, else the context's error.
func (p *Postmaster) Gone(ctx context.Context) error {
	if err := p.exited(ctx); err != nil {
		return fmt.Errorf("postgres: postmaster %d still runs: %w", p.pid, err)
	}
	tick := time.NewTicker(reapInterval)
	defer tick.Stop()
	for {
		err := p.signal(0)
		if errors.Is(err, os.ErrProcessDone) {
			return nil
		}
		// EPERM is a process of another user: still there.
		if err != nil && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("postgres: postmaster %d: %w", p.pid, err)
		}
		select {
		case <-ctx.Done():
			return &ZombieError{PID: p.pid}
		case <-tick.C:
		}
	}
}

// exited waits until the pidfd is readable, which it is from the exit on, reaped or not.
func (p *Postmaster) exited(ctx context.Context) error {
	if err := p.file.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		_ = p.file.SetReadDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-done
		}
	}()
	var pollErr error
	ready := func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			pollErr = err
			return true
		}
		return n > 0
	}
	err := p.raw.Read(ready)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// Already over when asked: look once all the same.
		over := false
		if err := p.raw.Control(func(fd uintptr) { over = ready(fd) }); err != nil {
			return err
		}
		if over {
			return pollErr
		}
		return ctx.Err()
	}
	return errors.Join(err, pollErr)
}

// Close gives the pidfd back. It may be called twice.
func (p *Postmaster) Close() { _ = p.file.Close() }
