package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/peer"
	"github.com/pgbaton/pgbaton/process"
)

// Postmaster is a server's first process, held by a pidfd (Linux 5.3): it is this process for ever, whatever
// becomes of its pid.
type Postmaster struct {
	process *process.Process
}

// ZombieError says that the process has exited and nobody has reaped it: its parent is gone and the container's first
// process does not reap, or its parent does not wait for it. Patroni takes a zombie for a running server.
type ZombieError struct{ PID int }

func (e *ZombieError) Error() string {
	return fmt.Sprintf("postgres: postmaster %d has exited but nobody reaps it; is there an init (tini, dumb-init) above it?", e.PID)
}

// Postmaster returns the process that this connection leads to. It must run in our pid namespace, and the connection must be over a Unix
// socket or to an address of this host. It blocks for two round trips.
//
// How it is known (PostgreSQL 17 and 18, Linux 6): the session's process has the postmaster for its parent. The pidfd is opened first,
// then the parent is looked at, and then the session answers once more, so it was not a reused pid that was looked at. Besides, on a Unix
// socket SO_PEERCRED names the process that listens, which is the postmaster; it is 0 when that is in a pid namespace which we cannot
// see.
//
// By TCP nothing of what the other end says is believed, since anybody may answer at the address of a server that is down, and name
// another server of ours: the kernel must say that the session's process has the other end of this connection, and the postmaster must
// work in the data directory whose postmaster.pid names it and this port, and which is its own user's. It needs pg_read_all_settings, and
// the server's user, or root.
func (c *Conn) Postmaster(ctx context.Context) (_ *Postmaster, err error) {
	backend, err := c.backendPID(ctx)
	if err != nil {
		return nil, err
	}
	said, dataDir, err := c.listener(ctx)
	if err != nil {
		return nil, err
	}
	p, err := process.Open(said)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	name, err := p.Name()
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	if name != "postgres" && name != "postmaster" {
		return nil, fmt.Errorf("postgres: process %d is %q, not a postmaster", said, name)
	}
	child, err := process.Open(backend)
	if err != nil {
		return nil, fmt.Errorf("postgres: session's process: %w", err)
	}
	defer child.Close()
	parent, err := child.Parent()
	if err != nil {
		return nil, fmt.Errorf("postgres: session's process: %w", err)
	}
	if parent != said {
		return nil, fmt.Errorf(
			"postgres: process %d is not the parent of this session's process %d; is the server in another pid namespace?",
			said,
			backend,
		)
	}
	if dataDir != "" {
		if err := c.proveTCP(p, child, dataDir); err != nil {
			return nil, err
		}
	}
	if again, err := c.backendPID(ctx); err != nil || again != backend {
		return nil, errors.Join(errors.New("postgres: the session's process changed; is there a pooler in between?"), err)
	}
	return &Postmaster{process: p}, nil
}

// proveTCP checks what the other end of a TCP connection says of itself by what the kernel and the data directory say.
func (c *Conn) proveTCP(postmaster, session *process.Process, dataDir string) error {
	holds, err := session.HoldsOtherEnd(c.raw)
	if err != nil {
		return fmt.Errorf("postgres: who is at %s: %w", c.RemoteAddr(), err)
	}
	if !holds {
		return fmt.Errorf(
			"postgres: process %d, which answers at %s by its own words, does not have that connection; is something in between?",
			session.PID,
			c.RemoteAddr(),
		)
	}
	works, err := postmaster.WorksIn(dataDir)
	if err != nil {
		return fmt.Errorf("postgres: working directory of the postmaster: %w", err)
	}
	if !works {
		return fmt.Errorf("postgres: process %d does not work in %s, which the server reports as its data directory",
			postmaster.PID, peer.Text(dataDir))
	}
	return nil
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

// listener returns the pid of the process that listens at the other end. By TCP it is the server that says so, and dataDir is where.
func (c *Conn) listener(ctx context.Context) (pid int, dataDir string, err error) {
	switch raw := c.raw.(type) {
	case *net.UnixConn:
		pid, err := unixPeer(raw)
		return pid, "", err
	case *net.TCPConn:
		to, _ := raw.RemoteAddr().(*net.TCPAddr)
		from, _ := raw.LocalAddr().(*net.TCPAddr)
		if to == nil || from == nil || !to.IP.IsLoopback() && !to.IP.Equal(from.IP) {
			return 0, "", fmt.Errorf("postgres: %v is not this host", raw.RemoteAddr())
		}
		r, err := c.value(ctx, "select current_setting('data_directory')")
		if err != nil {
			return 0, "", err
		}
		dir := r.text()
		if !filepath.IsAbs(dir) {
			return 0, "", fmt.Errorf("postgres: the data directory is not an absolute path: %q", peer.Text(dir))
		}
		pid, err := fromPidFile(dir, to.Port)
		return pid, dir, err
	default:
		return 0, "", fmt.Errorf("postgres: a connection of type %T leads to no process", raw)
	}
}

// maxPidFile is more than a postmaster.pid has: eight lines, two of them paths.
const maxPidFile = 8 << 10

// fromPidFile is the process that a data directory's postmaster.pid names, which must say that it listens at the port. The file's owner
// must be the process's user: another one's could name any process.
func fromPidFile(dataDir string, port int) (int, error) {
	path := filepath.Join(dataDir, "postmaster.pid")
	f, err := file.Open(path)
	if err != nil {
		return 0, fmt.Errorf("postgres: %w", peer.Error(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("postgres: %w", peer.Error(err))
	}
	content, err := io.ReadAll(io.LimitReader(f, maxPidFile))
	if err != nil {
		return 0, fmt.Errorf("postgres: %w", peer.Error(err))
	}
	lines := strings.Split(string(content), "\n") // pid, data directory, start, port, … (PostgreSQL: pidfile.h, 13 to 18)
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("postgres: %s holds no process id", peer.Text(path))
	}
	if len(lines) < 4 || strings.TrimSpace(lines[3]) != strconv.Itoa(port) {
		return 0, fmt.Errorf("postgres: %s is not of the server at port %d", peer.Text(path), port)
	}
	p, err := process.Open(pid)
	if err != nil {
		return 0, fmt.Errorf("postgres: %w", err)
	}
	defer p.Close()
	uid, err := p.UID()
	if err != nil {
		return 0, fmt.Errorf("postgres: %w", err)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != uid {
		return 0, fmt.Errorf("postgres: %s does not belong to the user of process %d", peer.Text(path), pid)
	}
	return pid, nil
}

func unixPeer(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("postgres: %w", err)
	}
	var peer *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, fmt.Errorf("postgres: %w", err)
	}
	if failed != nil {
		return 0, fmt.Errorf("postgres: SO_PEERCRED: %w", failed)
	}
	if peer.Pid <= 0 {
		return 0, errors.New("postgres: the server runs in a pid namespace that we cannot see")
	}
	return int(peer.Pid), nil
}

// PID is the process id in our namespace, for logs.
func (p *Postmaster) PID() int { return p.process.PID }

// FastShutdown sends SIGINT: sessions are ended, a checkpoint is written, standbys are waited for. It does not wait;
// see [Postmaster.Gone]. The error is [os.ErrProcessDone] when the process has exited already, and EPERM
// when we are not its user.
func (p *Postmaster) FastShutdown() error {
	err := p.process.Signal(unix.SIGINT)
	if errors.Is(err, os.ErrNotExist) {
		err = os.ErrProcessDone
	}
	if err != nil {
		return fmt.Errorf("postgres: fast shutdown of postmaster %d: %w", p.PID(), err)
	}
	return nil
}

// Gone blocks until the process has exited and was reaped, and returns nil. When ctx ends before: a
// [*ZombieError] when it has exited, else the context's error.
func (p *Postmaster) Gone(ctx context.Context) error {
	err := p.process.Reaped(ctx)
	if errors.Is(err, process.ErrZombie) {
		return &ZombieError{PID: p.PID()}
	}
	if err != nil {
		return fmt.Errorf("postgres: postmaster: %w", err)
	}
	return nil
}

// Close gives the pidfd back. It may be called twice.
func (p *Postmaster) Close() { p.process.Close() }
