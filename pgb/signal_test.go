package pgb_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/pgb"
	"golang.org/x/sys/unix"
)

func TestSignals(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		p := r.pooler(t)
		process, err := pgb.OpenPidfile(r.Pidfile)
		if err != nil {
			t.Fatal(err)
		}
		defer process.Close()
		if process.PID != r.PID {
			t.Errorf("process %d, want %d", process.PID, r.PID)
		}
		if err := process.Pause(); err != nil {
			t.Fatal(err)
		}
		r.heard(t, "got SIGUSR1", 1)
		r.wantPaused(t)
		if err := process.Resume(); err != nil {
			t.Fatal(err)
		}
		r.heard(t, "got SIGUSR2", 1)
		r.wantNotPaused(t)

		config, err := r.Config()
		if err != nil {
			t.Fatal(err)
		}
		if err := r.RewriteConfig(config + "server_login_retry = 7\n"); err != nil {
			t.Fatal(err)
		}
		if err := p.Signal((*pgb.Process).Reload); err != nil {
			t.Fatal(err)
		}
		until(t, "the new file is in force", func() bool {
			s, err := p.State(soon(t))
			return err == nil && s.LoginRetry == 7*time.Second
		})

		// It ends while it is held.
		r.Kill()
		if err := process.Pause(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a process that is gone: %v", err)
		}
		if err := p.Signal((*pgb.Process).Pause); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), p.Name) {
			t.Errorf("the pidfile of a process that is gone: %v", err)
		}
	})
}

// start runs sleep under a name and returns its command.
func startAs(t *testing.T, name string) *exec.Cmd { return startAsUser(t, name, os.Geteuid()) }

func startAsUser(t *testing.T, name string, uid int) *exec.Cmd {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	binary, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "pgb-test-") // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, name)
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, binary, 0o755)); err != nil {
		t.Fatal(err)
	}
	command := func() *exec.Cmd {
		cmd := exec.Command(path, "600")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if uid != os.Geteuid() {
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
		}
		return cmd
	}
	// Started under nohup, we ignore SIGHUP, and so would the copy: it would live on whatever is sent. A signal that we catch it has not.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	cmd := command()
	until(t, "the copy starts", func() bool {
		// "text file busy" while another test's child, forked meanwhile, still has it open.
		err = cmd.Start()
		if errors.Is(err, unix.ETXTBSY) {
			cmd = command()
			return false
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if mask := ignored(t, cmd.Process.Pid); mask&1 != 0 { // bit 0 is SIGHUP, 1
		t.Fatalf("process %d ignores SIGHUP (SigIgn %x): that it is not signalled could not be seen", cmd.Process.Pid, mask)
	}
	return cmd
}

// ignored is SigIgn of a process.
func ignored(t *testing.T, pid int) uint64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "SigIgn:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return mask
		}
	}
	t.Fatalf("process %d: no SigIgn", pid)
	return 0
}

func pidfile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pgbouncer.pid")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStalePidfileNamesAnotherProcess(t *testing.T) {
	for _, name := range []string{"sleep", "pgbouncer_exporte", "pgbounce", "pgbouncer2"} {
		t.Run(name, func(t *testing.T) {
			cmd := startAs(t, name)
			path := pidfile(t, strconv.Itoa(cmd.Process.Pid)+"\n")
			p := resolveOne(t, pgb.Spec{Pidfile: path})
			for _, send := range []func(*pgb.Process) error{(*pgb.Process).Pause, (*pgb.Process).Resume, (*pgb.Process).Reload} {
				if err := p.Signal(send); !errors.Is(err, pgb.ErrNotPgBouncer) {
					t.Errorf("%v, want ErrNotPgBouncer", err)
				}
			}
			// Any of the three would have killed it before this one does.
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGTERM {
				t.Errorf("it died of %v", s.Signal())
			}
		})
	}
}

func TestProcessEndsAfterOpen(t *testing.T) {
	cmd := startAs(t, "pgbouncer")
	process, err := pgb.OpenProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer process.Close()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// A process that has ended and that nobody has reaped takes every signal, and does nothing.
	until(t, "it is a zombie", func() bool { return state(t, process.PID) == "Z" })
	if err := process.Pause(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a zombie was signalled: %v", err)
	}
	if again, err := pgb.OpenProcess(process.PID); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a zombie was opened: %v", err)
		if err == nil {
			again.Close()
		}
	}
	_ = cmd.Wait()
	if err := process.Pause(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a process that is gone was signalled: %v", err)
	}
	if _, err := pgb.OpenPidfile(pidfile(t, strconv.Itoa(process.PID))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a process that is gone was opened: %v", err)
	}
}

func state(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return rest[:1]
}

func TestBadPidfiles(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "blank": " \n", "garbage": "pgbouncer\n", "negative": "-1\n", "zero": "0\n", "binary": "\x00\xff\x01",
		"two": "1\n2\n", "huge number": "99999999999999999999999", "huge file": strings.Repeat("1", 1<<20), "hex": "0x10", "float": "1.5",
	} {
		t.Run(name, func(t *testing.T) {
			process, err := pgb.OpenPidfile(pidfile(t, content))
			if err == nil {
				process.Close()
				t.Fatalf("opened process %d", process.PID)
			}
			if len(err.Error()) > 300 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
	// The kernel takes 32 bits of a process id: this must not be process 1.
	if process, err := pgb.OpenPidfile(pidfile(t, strconv.Itoa(1<<32+os.Getpid()))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%+v %v", process, err)
	}
	if _, err := pgb.OpenPidfile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := pgb.OpenPidfile(t.TempDir()); err == nil {
		t.Error("a folder was opened")
	}
}

// A pidfile that is no file holds nobody up, and one that another user has made names nobody.
func TestForeignPidfiles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs files of several users")
	}
	const alice, mallory = 2001, 2002
	dir := t.TempDir()
	cmd := startAsUser(t, "pgbouncer", alice)
	content := fmt.Appendln(nil, cmd.Process.Pid)
	write := func(name string, uid int) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, content, 0o644), os.Chown(path, uid, -1)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := func(name, to string, uid int) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.Symlink(to, path), os.Lchown(path, uid, -1)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	hers := write("hers", alice)
	for name, c := range map[string]struct {
		path string
		good bool
	}{
		"the process's user": {hers, true}, "root": {write("root", 0), true}, "another": {write("another", mallory), false},
		"a link of hers": {link("link", hers, alice), true}, "a link of root": {link("rlink", hers, 0), true},
		"a link of another":          {link("mlink", hers, mallory), false},
		"a folder's link of another": {filepath.Join(link("folder", dir, mallory), "hers"), false},
	} {
		process, err := pgb.OpenPidfile(c.path)
		if err == nil {
			process.Close()
		}
		if c.good && err != nil || !c.good && !errors.Is(err, pgb.ErrForeignPidfile) {
			t.Errorf("%s: %v", name, err)
		}
	}
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, "/dev/zero", "/dev/tty"} {
		opened := make(chan error, 1)
		go func() {
			process, err := pgb.OpenPidfile(path)
			if err == nil {
				process.Close()
			}
			opened <- err
		}()
		select {
		case err := <-opened:
			if err == nil {
				t.Errorf("%s names a process", path)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: does not come back", path)
		}
	}
}
