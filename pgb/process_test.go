package pgb_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
	"golang.org/x/sys/unix"
)

// replace puts a file in another's place, with the same owner and mode.
func replace(t *testing.T, path, content string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	if err := errors.Join(
		os.WriteFile(path+"+", []byte(content), info.Mode()),
		os.Chown(path+"+", int(st.Uid), int(st.Gid)),
		os.Rename(path+"+", path),
	); err != nil {
		t.Fatal(err)
	}
}

// asUser is set in a copy of the test program that runs as the pooler's user.
const asUser = "PGB_TEST_AS_USER"

type seen struct {
	Only, Config, Root, Connect, Diff, Reload string
	Settings                                  int
}

// lookAround is what a process of the pooler's own user can do.
func lookAround() int {
	var s seen
	text := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if only, err := pgb.OnlyProcess(os.Geteuid()); err != nil {
		s.Only = err.Error()
	} else {
		only.Close()
	}
	pid, _ := strconv.Atoi(os.Getenv(asUser))
	process, err := pgb.OpenProcess(pid)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer process.Close()
	if s.Config, s.Root, err = process.ConfigFile(); err != nil {
		s.Config = err.Error()
	}
	file, err := pgbini.ReadFile(s.Config, s.Root)
	if err != nil {
		s.Diff = err.Error()
	}
	listens := file
	if listens == nil {
		listens = &pgbini.File{}
	}
	port, _ := listens.Port()
	if p, err := process.PeerConsole(listens.SocketDir(), port); err != nil {
		s.Connect = err.Error()
	} else {
		settings, err := p.Settings(ctx)
		s.Connect, s.Settings = text(err), len(settings)
		databases, _ := p.ShowDatabases(ctx)
		if file != nil {
			s.Diff = fmt.Sprint(file.Diff(settings, databases))
		}
		p.Close()
	}
	s.Reload = text(process.Reload())
	_ = json.NewEncoder(os.Stdout).Encode(s)
	return 0
}

// look runs lookAround as a user.
func look(t *testing.T, dir string, uid, gid uint32, pid int) seen {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "looker")
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	var out []byte
	until(t, "the copy runs", func() bool { // "text file busy" while another test's child, forked meanwhile, has it open
		cmd := exec.CommandContext(soon(t), program)
		cmd.Env = []string{asUser + "=" + strconv.Itoa(pid)}
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}, Pdeathsig: syscall.SIGKILL}
		out, err = cmd.CombinedOutput()
		return !errors.Is(err, syscall.ETXTBSY)
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var s seen
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return s
}

func owner(t *testing.T, path string) (uid, gid uint32) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return st.Uid, st.Gid
}

func TestSameUserNeedsNoPassword(t *testing.T) {
	eachSuite(t, anyDatabase, func(t *testing.T, r0 *rig) {
		r := newReloader(t, r0)
		// The copy of the test program must be seen under its path; the pooler's folder is.
		uid, gid := owner(t, r.Dir)
		r.write(t, r.base+"query_timeout = 9\n")
		s := look(t, r.Dir, uid, gid, r.PID)
		if s.Config != r.ConfigPath || s.Root != r.root {
			t.Errorf("%+v, want %s in %s", s, r.ConfigPath, r.root)
		}
		if s.Connect != "" || s.Settings < 80 || !strings.Contains(s.Diff, " 16 query_timeout 9 0 ") || s.Reload != "" {
			t.Errorf("%+v", s)
		}
		if s.Only != "" && !strings.Contains(s.Only, "several pgbouncer processes of user "+strconv.Itoa(int(uid))) ||
			s.Only != "" && !strings.Contains(s.Only, strconv.Itoa(r.PID)) {
			t.Errorf("only process: %s", s.Only)
		}
		until(t, "SIGHUP took", func() bool { return len(r.diff(t)) == 0 })

		// Another user is not let in, and may not look.
		other := look(t, r.Dir, uid+4000, gid, r.PID)
		if other.Connect == "" || other.Settings > 0 || other.Reload == "" || !strings.Contains(other.Config, "permission denied") {
			t.Errorf("another user: %+v", other)
		}
		if !strings.Contains(other.Only, "no pgbouncer process of user") {
			t.Errorf("another user: %q", other.Only)
		}
	})
}

func TestOnlyProcess(t *testing.T) {
	single.Need(t)
	// Of a user that has no other, and that the poolers of other tests do not have.
	const uid = 61234
	if _, err := pgb.OnlyProcess(uid); !errors.Is(err, pgb.ErrNoProcess) || !strings.Contains(err.Error(), strconv.Itoa(uid)) {
		t.Errorf("none: %v", err)
	}
	first := startAsUser(t, "pgbouncer", uid)
	p, err := pgb.OnlyProcess(uid)
	if err != nil {
		t.Fatal(err)
	}
	if p.PID != first.Process.Pid {
		t.Errorf("process %d, want %d", p.PID, first.Process.Pid)
	}
	// It is only called so, has no handler and would die.
	for _, send := range []func() error{p.Reload, p.Pause, p.Resume} {
		if err := send(); !errors.Is(err, pgb.ErrNoHandler) {
			t.Errorf("%v, want ErrNoHandler", err)
		}
	}
	if state(t, p.PID) == "Z" {
		t.Fatal("it died")
	}
	p.Close()
	second := startAsUser(t, "pgbouncer", uid)
	_, err = pgb.OnlyProcess(uid)
	if !errors.Is(err, pgb.ErrSeveralProcesses) || !strings.Contains(err.Error(), strconv.Itoa(first.Process.Pid)) ||
		!strings.Contains(err.Error(), strconv.Itoa(second.Process.Pid)) {
		t.Errorf("two: %v", err)
	}
	// One that has ended and is not reaped does not count, nor does one of another name.
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	until(t, "it is a zombie", func() bool { return state(t, first.Process.Pid) == "Z" })
	startAsUser(t, "pgbouncer2", uid)
	if p, err = pgb.OnlyProcess(uid); err != nil || p.PID != second.Process.Pid {
		t.Fatalf("%v %v, want %d", p, err, second.Process.Pid)
	}
	p.Close()
}

func TestPeerConsoleOfAnotherProcess(t *testing.T) {
	eachSuite(t, anyDatabase, func(t *testing.T, r0 *rig) {
		r := newReloader(t, r0)
		other := startAs(t, "pgbouncer")
		p, err := pgb.OpenProcess(other.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		// The file names the socket of the pooler, which is not that process.
		file := r.read(t)
		port, _ := file.Port()
		peer, err := p.PeerConsole(file.SocketDir(), port)
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		// The pooler's folder has the same path inside and outside of its root.
		if err := peer.Open(soon(t)); err == nil || !strings.Contains(err.Error(), "listens there, not") {
			t.Errorf("%v", err)
		}
	})
}

// What a process can open is judged only where it is the same for us.
func TestOpens(t *testing.T) {
	eachSuite(t, anyDatabase, func(t *testing.T, r *rig) {
		at := func(name string) string { return filepath.Join(r.Dir, name) }
		links := map[string]string{
			"out": "/dev/stdout", "far": "out", "up": "../../proc/./self/fd/77", "fd": "/proc/self/fd", "thread": "/proc/thread-self/fd/1",
			"magic": fmt.Sprintf("/proc/%d/fd/1", r.PID), "log2": "log", "loop": "loop",
		}
		for name, target := range links {
			if err := os.Symlink(target, at(name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(unix.Mkfifo(at("pipe"), 0o666), os.MkdirAll(at("proc/self"), 0o755)); err != nil {
			t.Fatal(err)
		}
		// A pooler in its root, and a process of our own user, where a refusal is a proof.
		for _, pid := range []int{r.PID, startAs(t, "pgbouncer").Process.Pid} {
			p, err := pgb.OpenProcess(pid)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			for _, name := range []string{
				"/dev/stdout", "/dev/stderr", "/dev/fd/77", "/proc/self/fd/77", "/proc/thread-self/fd/1", at("out"), at("far"), at("up"),
				at("fd/77"), at("thread"),
				at("magic"), at("pipe"), "relative/log", at("log"), at("log2"), at("new"), at("proc/self/log"), "/dev/null",
			} {
				if err := p.Opens(name, true); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			for name, want := range map[string]error{
				"/nonexistent/log": unix.ENOENT, at("proc/self/a/log"): unix.ENOENT, at("loop"): unix.ELOOP, at("proc/self"): unix.EISDIR,
			} {
				if own := pid != r.PID; (own || want == unix.ENOENT) && !errors.Is(p.Opens(name, true), want) {
					t.Errorf("%s: %v, want %v", name, p.Opens(name, true), want)
				}
			}
			if err := p.Opens(at("new"), false); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("for reading: %v", err)
			}
		}
	})
}
