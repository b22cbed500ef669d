// Package single starts one throw-away PostgreSQL or PgBouncer for a test, from the root file
// systems that scripts/lab-root.sh makes, or Debian's own PgBouncer of this machine.
//
// Every server is a child of the test process, runs as the postgres user of its root in a mount
// namespace of its own, listens on an address of its own in 127.0.0.0/8 and on a Unix socket, keeps
// everything in one folder under /tmp (the same path inside and outside of its root), and dies with
// its parent. It needs root: a test calls [Need] first.
package single

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/labroot"
)

// Suites. SuiteHost is the machine's own PgBouncer (Debian 12: 1.18); there is no PostgreSQL of it.
const (
	SuiteTrixie = "trixie" // PostgreSQL 17, PgBouncer 1.24
	SuiteSid    = "sid"    // PostgreSQL 18, PgBouncer 1.26
	SuiteHost   = "host"
)

// Password is every user's, of PostgreSQL and of PgBouncer, where nothing else was asked for.
const Password = "single-secret"

// Need skips the test where no server can be started.
func Need(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mount namespaces and chroot")
	}
}

// process is a child that has become the server by a chain of execs, so that its pid is the server's.
type process struct {
	pid    int
	exited chan struct{} // closed once reaped
	reap   chan struct{} // closed: reap it from now on
	once   sync.Once
}

// enter makes the mounts of the child's own namespace and becomes the server.
// $1 root ("/": none), $2 folder, $3 user; the rest is the command.
const enter = `set -e
root=$1 dir=$2 user=$3; shift 3
if [ "$root" != / ]; then
	mount --rbind /dev "$root/dev"
	mount --rbind /proc "$root/proc"
	mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
	mkdir "$root$dir"
	mount --bind "$dir" "$root$dir"
fi
exec chroot "$root" /usr/bin/setpriv --reuid "$user" --regid "$user" --clear-groups --pdeathsig KILL -- "$@"
`

// spawn starts the command. With keepZombie nobody reaps it before close is called, as in a container
// whose first process does not.
func spawn(root, dir, user, log string, keepZombie bool, command ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command("unshare", append([]string{"--mount", "--propagation", "private", "--",
		"sh", "-c", enter, "enter", root, dir, user}, command...)...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC"}
	// A group of its own: Ctrl-C in the terminal ends the test, and that ends the server.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}

	p := &process{exited: make(chan struct{}), reap: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The parent-death signal comes when the *thread* that forked ends: keep it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.exited)
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err != nil {
			return
		}
		if keepZombie {
			<-p.reap
		}
		_ = cmd.Wait()
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) signal(s syscall.Signal) error {
	select {
	case <-p.exited:
		return os.ErrProcessDone
	default:
		return syscall.Kill(p.pid, s)
	}
}

// end sends s, and KILL when the process is still there after the patience, and reaps it.
func (p *process) end(s syscall.Signal, patience time.Duration) {
	p.once.Do(func() { close(p.reap) })
	_ = p.signal(s)
	_ = p.signal(syscall.SIGCONT)
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-p.exited:
	case <-t.C:
		_ = p.signal(syscall.SIGKILL)
		<-p.exited
	}
}

// await calls ready every 10 ms until it returns nil, the process has ended or ctx is done.
func (p *process) await(ctx context.Context, log string, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("ended before it was ready (%w); the end of its log:\n%s", err, tail(log))
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w; the end of its log:\n%s", err, tail(log))
		case <-tick.C:
		}
	}
}

func tail(log string) string {
	b, _ := os.ReadFile(log)
	if len(b) > 3000 {
		b = b[len(b)-3000:]
	}
	return string(b)
}

// rootOf is the file system that a suite's programs are in.
func rootOf(ctx context.Context, suite string) (string, error) {
	if suite == SuiteHost {
		return "/", nil
	}
	return labroot.Of(ctx, suite)
}

// folder makes the server's folder; name is short because a socket's path has 107 bytes.
func folder(root string) (dir string, err error) {
	uid, gid, err := labroot.User(root, "postgres")
	if err != nil {
		return "", err
	}
	dir, err = os.MkdirTemp("/tmp", "pgb-single-")
	if err != nil {
		return "", err
	}
	return dir, errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, uid, gid))
}

// address picks a free address in 127.64.0.0/10 for the port; everything that listens on all
// addresses is in the way, so the port is not a usual one.
func address(port uint16) (string, error) {
	var last error
	for range 50 {
		addr := fmt.Sprintf("127.%d.%d.%d", 64+rand.IntN(64), rand.IntN(256), 1+rand.IntN(254))
		l, err := net.Listen("tcp", net.JoinHostPort(addr, strconv.Itoa(int(port))))
		if err == nil {
			return addr, l.Close()
		}
		last = err
	}
	return "", last
}

// write makes a file that the server's user owns.
func write(root, path, content string, mode os.FileMode) error {
	uid, gid, err := labroot.User(root, "postgres")
	if err != nil {
		return err
	}
	// By a rename: the server may read it at any time.
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(content), mode); err != nil {
		return err
	}
	return errors.Join(os.Chown(tmp, uid, gid), os.Rename(tmp, path))
}
