package process_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pgbaton/pgbaton/process"
	"golang.org/x/sys/unix"
)

// start starts a shell that says when it has come to its end, where it waits for the returned function.
func start(t *testing.T, script string) (*exec.Cmd, func()) {
	t.Helper()
	cmd := exec.Command("sh", "-c", script+"\necho ready; read nothing", "a  name", "")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(line, err)
	}
	return cmd, func() { _ = in.Close() }
}

func TestProcess(t *testing.T) {
	// Not HUP: a shell cannot catch what was ignored when it began, as under nohup.
	cmd, goOn := start(t, "trap 'exit 7' USR1")
	p, err := process.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	name, err := p.Name()
	parent, err2 := p.Parent()
	uid, err3 := p.UID()
	inner, err4 := p.InnerPID()
	if err := errors.Join(
		err,
		err2,
		err3,
		err4,
	); err != nil || !strings.HasSuffix(name, "sh") || parent != os.Getpid() || uid != os.Geteuid() || inner <= 0 ||
		p.PID != cmd.Process.Pid {
		t.Error(name, parent, uid, inner, err)
	}
	args, err := p.Args()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"sh", "-c", "trap 'exit 7' USR1\necho ready; read nothing", "a  name", ""}, args); d != "" {
		t.Error(d)
	}
	for s, want := range map[unix.Signal]bool{unix.SIGUSR1: true, unix.SIGUSR2: false, unix.SIGTERM: false} {
		if got, err := p.Catches(s); got != want || err != nil {
			t.Errorf("%v: %v, %v", s, got, err)
		}
	}
	ours, err := os.Stat("/etc/passwd")
	theirs, err2 := os.Stat(p.Path("/etc/passwd"))
	if errors.Join(err, err2) != nil || !os.SameFile(ours, theirs) {
		t.Error(err, err2)
	}
	here, err := os.Stat("process_test.go")
	theirs, err2 = os.Stat(p.Path("process_test.go"))
	if errors.Join(err, err2) != nil || !os.SameFile(here, theirs) {
		t.Error(err, err2)
	}
	if p.Ended() {
		t.Error("ended")
	}
	if err := p.Signal(unix.SIGUSR1); err != nil {
		t.Error(err)
	}
	goOn() // a shell that was not yet in read would look at the signal after it only
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 7 {
		t.Errorf("exit code %d", code)
	}
	gone(t, p)
	if _, err := process.Open(cmd.Process.Pid); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// A zombie has a name, and takes every signal.
func TestZombie(t *testing.T) {
	cmd, _ := start(t, "")
	p, err := process.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for !p.Ended() {
		if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
	gone(t, p)
	if _, err := process.Open(cmd.Process.Pid); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func gone(t *testing.T, p *process.Process) {
	t.Helper()
	_, name := p.Name()
	_, args := p.Args()
	_, uid := p.UID()
	_, catches := p.Catches(unix.SIGHUP)
	for _, err := range []error{name, args, uid, catches, p.Signal(unix.SIGHUP)} {
		if !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	}
}

func TestWait(t *testing.T) {
	cmd, goOn := start(t, "")
	p, err := process.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for name, wait := range map[string]func(context.Context) error{"Wait": p.Wait, "Reaped": p.Reaped} {
		if err := wait(over); !errors.Is(err, context.Canceled) || errors.Is(err, process.ErrZombie) {
			t.Errorf("%s while it runs: %v", name, err)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it runs: %v", err)
	}
	waiting := make(chan error, 3)
	for range 2 {
		go func() { waiting <- p.Wait(t.Context()) }()
	}
	goOn()
	for range 2 {
		if err := <-waiting; err != nil {
			t.Error(err)
		}
	}
	if err := p.Wait(over); err != nil {
		t.Errorf("it has ended, asked too late: %v", err)
	}
	if err := p.Reaped(over); !errors.Is(err, process.ErrZombie) {
		t.Errorf("a zombie: %v", err)
	}
	go func() { waiting <- p.Reaped(t.Context()) }()
	_ = cmd.Wait()
	if err := <-waiting; err != nil {
		t.Error(err)
	}
	p.Close()
	if err := p.Wait(t.Context()); err == nil || p.Ended() || p.Signal(unix.SIGTERM) == nil {
		t.Error("a closed one", err)
	}
}

func TestFamily(t *testing.T) {
	cmd, _ := start(t, "cd /")
	p, err := process.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if above := process.Ancestors(p.PID); len(above) < 2 || above[0] != os.Getpid() || above[1] != os.Getppid() {
		t.Error(above)
	}
	all, err := process.All()
	if err != nil || !slices.Contains(all, p.PID) || !slices.Contains(all, 1) {
		t.Error(all, err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/", link); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{"/": true, link: true, "/tmp": false} {
		if got, err := p.WorksIn(dir); got != want || err != nil {
			t.Errorf("%s: %v, %v", dir, got, err)
		}
	}
	if got, err := p.WorksIn("/none"); got || err == nil {
		t.Error("a folder that is not there")
	}
}

// Who has the other end of a connection: the process that accepted it, and nobody who only says so.
func TestHoldsOtherEnd(t *testing.T) {
	other, _ := start(t, "")
	p, err := process.Open(other.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	self, err := process.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	for _, network := range []struct{ listen, dial string }{{"127.0.0.1:0", "127.0.0.1"}, {"[::1]:0", "::1"}, {"[::]:0", "127.0.0.1"},
		{"[::]:0", "::1"}} {
		l, err := net.Listen("tcp", network.listen)
		if err != nil {
			t.Logf("%v (no IPv6 here?)", err)
			continue
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		c, err := net.Dial("tcp", net.JoinHostPort(network.dial, port))
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if holds, err := self.HoldsOtherEnd(c); !holds || err != nil {
			t.Errorf("%v: %v, %v", network, holds, err)
		}
		if holds, err := p.HoldsOtherEnd(c); holds || err != nil {
			t.Errorf("%v: another process: %v, %v", network, holds, err)
		}
		_ = c.Close()
		_ = accepted.Close()
		_ = l.Close()
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if holds, err := self.HoldsOtherEnd(a); holds || err == nil {
		t.Error("a pipe")
	}
}

func TestListeners(t *testing.T) {
	reuse := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if failed := c.Control(
			func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) },
		); failed != nil {
			return failed
		}
		return err
	}}
	listen := func(at string) *net.TCPAddr {
		l, err := reuse.Listen(t.Context(), "tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l.Addr().(*net.TCPAddr)
	}
	want := func(when, host string, port, n int) {
		t.Helper()
		if got, err := process.Listeners(netip.AddrPortFrom(netip.MustParseAddr(host), uint16(port))); got != n || err != nil {
			t.Errorf("%s: %d, %v; want %d", when, got, err, n)
		}
	}
	port := listen("127.0.0.1:0").Port
	want("one", "127.0.0.1", port, 1)
	want("another address", "127.0.0.2", port, 0)
	want("another port", "127.0.0.1", 1, 0)
	listen(fmt.Sprintf("127.0.0.1:%d", port))
	want("two", "127.0.0.1", port, 2)
	listen(fmt.Sprintf("0.0.0.0:%d", port))
	want("the exact ones take them", "127.0.0.1", port, 2)
	want("every address", "127.0.0.2", port, 1)
}

func TestNoProcess(t *testing.T) {
	for _, pid := range []int{0, -1, 1 << 30} {
		if p, err := process.Open(pid); err == nil {
			p.Close()
			t.Error(pid)
		}
	}
}
