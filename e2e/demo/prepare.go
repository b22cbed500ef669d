package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// labDir is where scripts/lab-root.sh and the lab keep their files.
func labDir() string {
	if dir := os.Getenv("PGBATON_LAB_DIR"); dir != "" {
		return dir
	}
	return "/var/lib/pgbaton-lab"
}

const (
	mib = 1 << 20
	// A suite's root is 0.7 GB, and its packages lie beside it while they are unpacked.
	diskForRoot = 2048 * mib
	diskForRun  = 200 * mib
	// The servers' data is on a tmpfs: three members with their WAL.
	memoryForRun = 1024 * mib
)

// machine is what the demo must know before it touches anything.
type machine struct {
	root        bool // effective uid 0
	mayMount    bool // CAP_SYS_ADMIN: root in a container often has it not
	dir         string
	rootMade    bool // the suite's root is there
	diskFree    uint64
	memoryFree  uint64 // 0: not known
	debootstrap bool
	apt         bool
}

func look(dir, suite string) (machine, error) {
	m := machine{root: os.Geteuid() == 0, dir: dir, mayMount: true}
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		if found := regexp.MustCompile(`(?m)^CapEff:\s*([0-9a-f]+)`).FindSubmatch(status); found != nil {
			caps, err := strconv.ParseUint(string(found[1]), 16, 64)
			m.mayMount = err != nil || caps&(1<<unix.CAP_SYS_ADMIN) != 0
		}
	}
	_, err := os.Stat(filepath.Join(dir, suite, ".pgbaton-lab"))
	m.rootMade = err == nil
	existing := dir
	for {
		if _, err := os.Stat(existing); err == nil || existing == "/" {
			break
		}
		existing = filepath.Dir(existing)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(existing, &fs); err != nil {
		return m, fmt.Errorf("cannot ask for the free space of %s: %w", existing, err)
	}
	m.diskFree = fs.Bavail * uint64(fs.Bsize)
	if info, err := os.ReadFile("/proc/meminfo"); err == nil {
		if found := regexp.MustCompile(`(?m)^MemAvailable:\s*(\d+) kB`).FindSubmatch(info); found != nil {
			kib, _ := strconv.ParseUint(string(found[1]), 10, 64)
			m.memoryFree = kib * 1024
		}
	}
	_, err = exec.LookPath("debootstrap")
	m.debootstrap = err == nil
	_, err = exec.LookPath("apt-get")
	m.apt = err == nil
	return m, nil
}

// missing is what keeps the demo from running here, with what to do; nil if nothing does.
func (m machine) missing() error {
	disk := uint64(diskForRun)
	if !m.rootMade {
		disk = diskForRoot
	}
	switch {
	case !m.root:
		return &problem{"not root: the demo makes namespaces and mounts for its servers",
			`run "make demo" as root, or: sudo env PATH="$PATH" make demo`}
	case !m.mayMount:
		return &problem{"this root may not mount (no CAP_SYS_ADMIN): probably a container",
			"run the demo on a machine of its own, or in a container that is started as privileged"}
	case m.diskFree < disk:
		return &problem{fmt.Sprintf("no disk space: %s has %d MB free, the demo needs %d MB", m.dir, m.diskFree/mib, disk/mib),
			`make room, or name another place in PGBATON_LAB_DIR (the same for "make demo-down")`}
	case m.memoryFree > 0 && m.memoryFree < memoryForRun:
		return &problem{fmt.Sprintf("too little memory: %d MB are available, the servers need %d MB", m.memoryFree/mib, memoryForRun/mib),
			"end something else on this machine, or take a larger one"}
	case !m.rootMade && !m.debootstrap && !m.apt:
		return &problem{"debootstrap is missing, and there is no apt-get to install it with",
			"install debootstrap by this system's own means, or run the demo on Debian"}
	}
	return nil
}

// installedNote names the packages that the demo has installed on this machine, for takeDown.
const installedNote = "demo-installed"

// installDebootstrap installs it, and leaves a note of every package that came with it.
func installDebootstrap(ctx context.Context, dir string, s *screen) error {
	log := filepath.Join(dir, "demo-apt.log")
	failed := func(err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &problem{fmt.Sprintf("debootstrap could not be installed: %v\n%s", err, tail(log, 10)),
			`see that "apt-get install debootstrap" works on this machine (is the Debian mirror reachable?), then run the demo again`}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	s.step("installing debootstrap")
	apt := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "-y", "--no-install-recommends"}, args...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
		return gently(cmd)
	}
	if err := logged(apt("update"), log); err != nil {
		return failed(err)
	}
	plan, err := apt("--simulate", "install", "debootstrap").Output()
	if err != nil {
		return failed(err)
	}
	if err := os.WriteFile(
		filepath.Join(dir, installedNote),
		[]byte(strings.Join(plannedPackages(string(plan)), "\n")+"\n"),
		0o644,
	); err != nil {
		return err
	}
	if err := logged(apt("install", "debootstrap"), log); err != nil {
		return failed(err)
	}
	return nil
}

// plannedPackages reads what "apt-get --simulate install" would install anew. An upgrade has the old version in brackets.
func plannedPackages(plan string) []string {
	var names []string
	for _, line := range strings.Split(plan, "\n") {
		words := strings.Fields(line)
		if len(words) > 2 && words[0] == "Inst" && !strings.HasPrefix(words[2], "[") {
			names = append(names, words[1])
		}
	}
	return names
}

// makeRoot makes the suite's root file system or finds it made, and returns where it is.
func makeRoot(ctx context.Context, repository, suite string, s *screen) (string, error) {
	// A debootstrap that was cut short may have left /proc mounted in there.
	if err := unmountBelow(filepath.Join(labDir(), suite+".building")); err != nil {
		return "", err
	}
	cmd := gently(exec.CommandContext(ctx, filepath.Join(repository, "scripts", "lab-root.sh"), suite))
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return "", err
	}
	var stdout strings.Builder
	cmd.Stdout = &stdout
	if err := cmd.Start(); err != nil {
		return "", err
	}
	stamp := regexp.MustCompile(`^\d\d:\d\d:\d\d `)
	var last []string
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if at := stamp.FindString(lines.Text()); at != "" {
			s.step("%s", strings.TrimPrefix(lines.Text(), at))
		} else {
			last = append(last, lines.Text())
		}
	}
	_, _ = io.Copy(io.Discard, stderr)
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			endGroup(cmd.Process.Pid)
			return "", ctx.Err()
		}
		return "", &problem{
			fmt.Sprintf("the servers' root file system could not be made: %v\n%s", err, strings.Join(last[max(0, len(last)-15):], "\n")),
			fmt.Sprintf(
				"read %s; most often the Debian mirror was not reachable: then run the demo again",
				filepath.Join(labDir(), suite+".log"),
			),
		}
	}
	words := strings.Fields(stdout.String())
	if len(words) == 0 {
		return "", fmt.Errorf("scripts/lab-root.sh %s has not said where the root is", suite)
	}
	return words[len(words)-1], nil
}

// build makes the static binary as a release has it.
func build(ctx context.Context, repository, path string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "./cmd/pgbaton")
	cmd.Dir = repository
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &problem{fmt.Sprintf("pgbaton does not build: %v\n%s", err, out), "see the compiler's words above"}
	}
	return nil
}

// repositoryRoot is the nearest directory above this one that has scripts/lab-root.sh.
func repositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "scripts", "lab-root.sh")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", &problem{
				"this is not pgbaton's repository: scripts/lab-root.sh is in no directory above this one",
				`run "make demo" in the repository`,
			}
		}
		dir = filepath.Dir(dir)
	}
}

// gently lets a command end by itself on a cancelled context before it is killed. It has a process group of its own: a Ctrl-C
// reaches it once, from us.
func gently(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// endGroup waits until the process group of a command that was told to end is empty: debootstrap outlives the script that
// called it by what it is doing just then.
func endGroup(group int) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.Now().Add(5 * time.Second)
	for range tick.C {
		signal := syscall.Signal(0)
		if time.Now().After(limit) {
			signal = syscall.SIGKILL
		}
		if err := syscall.Kill(-group, signal); err != nil || signal == syscall.SIGKILL {
			return
		}
	}
}

func logged(cmd *exec.Cmd, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	return cmd.Run()
}

// tail is the last lines of a file.
func tail(path string, n int) string {
	content, _ := os.ReadFile(path)
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
