package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// bind makes host visible as inside in a container.
type bind struct {
	host, inside string
	readOnly     bool
}

// containerSpec says what to run and what it sees.
type containerSpec struct {
	name   string
	lower  string // the suite's root
	dir    string // upper, work and root of the overlay; kept between starts
	binds  []bind
	tmpfs  []tmpfs
	env    map[string]string
	argv   []string
	output string // host file that gets stdout and stderr, appended
	cgroup string // host directory of the control group that it is the root of; "": it stays in ours
}

// tmpfs is a directory that is empty at each start of a container.
type tmpfs struct {
	inside   string
	mode     os.FileMode
	uid, gid int
}

// container is a started process 1 in namespaces of its own.
type container struct {
	name  string
	pid   int // process 1, as this machine counts
	pidns *os.File
	done  chan struct{} // closed when process 1 and all others have ended
	err   error         // how process 1 ended; read after done
}

// shellQuote makes s one word of a shell script.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// script mounts what the container sees and becomes its process 1. It runs in the new namespaces.
func (s containerSpec) script() string {
	var b strings.Builder
	root := filepath.Join(s.dir, "root")
	line := func(format string, words ...string) {
		quoted := make([]any, len(words))
		for i, w := range words {
			quoted[i] = shellQuote(w)
		}
		fmt.Fprintf(&b, format+"\n", quoted...)
	}
	line("set -eu")
	line("mount --make-rprivate /")
	line("mount -t overlay overlay -o %s %s", fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", s.lower, s.dir, s.dir), root)
	line("mount -t proc proc %s", root+"/proc")
	line("mount --rbind /dev %s", root+"/dev")
	line("mount -t tmpfs -o mode=1777 tmpfs %s", root+"/dev/shm")
	if s.cgroup != "" {
		line("mount -t sysfs -o ro sysfs %s", root+"/sys")
		line("mount -t cgroup2 cgroup2 %s", root+"/sys/fs/cgroup")
	}
	for _, t := range s.tmpfs {
		line("mkdir -p %s", root+t.inside)
		line("mount -t tmpfs -o %s tmpfs %s", fmt.Sprintf("mode=%o,uid=%d,gid=%d", t.mode, t.uid, t.gid), root+t.inside)
	}
	line("mkdir -p %s && chmod 755 %s", root+"/run/postgresql", root+"/run/postgresql")
	for _, m := range s.binds {
		if info, err := os.Stat(m.host); err == nil && !info.IsDir() {
			line("mkdir -p %s && touch %s", filepath.Dir(root+m.inside), root+m.inside)
		} else {
			line("mkdir -p %s", root+m.inside)
		}
		line("mount --bind %s %s", m.host, root+m.inside)
		if m.readOnly {
			line("mount -o remount,bind,ro %s", root+m.inside)
		}
	}
	line("echo %s >/proc/sys/kernel/hostname", s.name)
	line("cd %s", root)
	b.WriteString("exec chroot . /usr/bin/env -i")
	keys := make([]string, 0, len(s.env))
	for k := range s.env {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		b.WriteString(" " + shellQuote(k+"="+s.env[k]))
	}
	for _, a := range s.argv {
		b.WriteString(" " + shellQuote(a))
	}
	b.WriteString("\n")
	return b.String()
}

// start runs the container. It returns when process 1 exists; whether its server is ready is for the
// caller to find out.
func (s containerSpec) start() (*container, error) {
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	out, err := os.OpenFile(s.output, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()

	cmd := exec.Command("/bin/sh", "-c", s.script())
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWPID,
		Setsid:     true,
		Pdeathsig:  syscall.SIGKILL,
	}
	if s.cgroup != "" {
		group, err := openCgroup(s.cgroup)
		if err != nil {
			return nil, err
		}
		defer group.Close()
		// First into the group, then a namespace of which it is the root.
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.Fd())
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWCGROUP
	}
	c := &container{name: s.name, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The signal on the parent's death comes when the *thread* that started the child ends: this
		// goroutine keeps its thread until the child is gone.
		runtime.LockOSThread()
		err := cmd.Start()
		if err == nil {
			c.pid = cmd.Process.Pid
			c.pidns, err = os.Open(fmt.Sprintf("/proc/%d/ns/pid", c.pid))
			if err != nil {
				cmd.Process.Kill()
				cmd.Wait()
			}
		}
		started <- err
		if err != nil {
			return
		}
		c.err = cmd.Wait()
		c.pidns.Close()
		close(c.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", s.name, err)
	}
	return c, nil
}

// running tells whether process 1 is alive.
func (c *container) running() bool {
	if c == nil {
		return false
	}
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// kill ends the container at once and waits until it is gone.
func (c *container) kill() {
	if c.running() {
		syscall.Kill(c.pid, syscall.SIGKILL) // not reaped before done, so it is ours
		<-c.done
	}
}

// wait waits until the container is gone.
func (c *container) wait(ctx context.Context) error {
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s still runs: %w", c.name, ctx.Err())
	}
}

// Process is one process of a container, as this machine counts.
type Process struct {
	PID     int
	PPID    int
	Comm    string
	Args    []string
	State   byte // R, S, D, T, Z, …
	Started uint64
}

// Cmdline is the process's arguments in one line.
func (p Process) Cmdline() string { return strings.Join(p.Args, " ") }

// Kill sends a signal. A process that is gone meanwhile is an error.
func (p Process) Kill(sig syscall.Signal) error {
	now, err := readProcess(p.PID)
	if err != nil || now.Started != p.Started {
		return fmt.Errorf("process %d (%s): %w", p.PID, p.Comm, syscall.ESRCH)
	}
	return syscall.Kill(p.PID, sig)
}

// Alive tells whether the same process still runs; a zombie does not.
func (p Process) Alive() bool {
	now, err := readProcess(p.PID)
	return err == nil && now.Started == p.Started && now.State != 'Z'
}

func readProcess(pid int) (Process, error) {
	p := Process{PID: pid}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, err
	}
	// The name stands in parentheses and may contain anything.
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return p, fmt.Errorf("process %d: cannot read its stat", pid)
	}
	p.Comm = string(stat[open+1 : end])
	rest := strings.Fields(string(stat[end+1:]))
	if len(rest) < 20 {
		return p, fmt.Errorf("process %d: short stat", pid)
	}
	p.State = rest[0][0]
	p.PPID, _ = strconv.Atoi(rest[1])
	p.Started, _ = strconv.ParseUint(rest[19], 10, 64)
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if s := strings.TrimRight(string(cmdline), "\x00"); s != "" {
		p.Args = strings.Split(s, "\x00")
	}
	return p, nil
}

// processes lists what runs in the container's PID namespace, oldest first. The namespace is held open
// while we look: an inode number alone may belong to a later namespace.
func (c *container) processes() ([]Process, error) {
	if !c.running() {
		return nil, nil
	}
	want, err := c.pidns.Stat()
	if err != nil {
		return nil, nil // closed meanwhile: gone
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		ns, err := os.Stat(fmt.Sprintf("/proc/%d/ns/pid", pid))
		if err != nil || !os.SameFile(ns, want) {
			continue
		}
		if p, err := readProcess(pid); err == nil {
			found = append(found, p)
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Started < found[j].Started })
	return found, nil
}

// Until calls check every interval until it returns nil. When ctx ends it returns the last reason.
func Until(ctx context.Context, interval time.Duration, what string, check func(context.Context) error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var last error // that is not about the end of ctx alone
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w (last: %w)", what, ctx.Err(), last)
		}
	}
}

// parallel runs all functions at once and joins their errors.
func parallel(fs ...func() error) error {
	errs := make([]error, len(fs))
	var wg sync.WaitGroup
	for i, f := range fs {
		wg.Add(1)
		go func() { defer wg.Done(); errs[i] = f() }()
	}
	wg.Wait()
	return errors.Join(errs...)
}
