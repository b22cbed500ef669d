package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	statusLimit = 64 << 10  // bytes of /proc/PID/stat and status
	argsLimit   = 256 << 10 // bytes of /proc/PID/cmdline
	envLimit    = 1 << 20   // bytes of /proc/PID/environ
	maxParents  = 64        // that Ancestors goes up
)

// All are the ids of the processes that can be seen from here, zombies among them.
func All() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("processes: %w", err)
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Ancestors are the ids of the processes above one, its parent first, as far as they can be seen from here; at most 64. They are numbers:
// by the time that one is used it may be another process's, see [Open].
func Ancestors(pid int) []int {
	var above []int
	for range maxParents {
		stat, err := statOf(pid)
		if err != nil || stat.parent <= 0 {
			break
		}
		pid = stat.parent
		above = append(above, pid)
	}
	return above
}

// stat is what is used of /proc/PID/stat (proc_pid_stat(5)).
type stat struct {
	name   string
	parent int
}

func statOf(pid int) (stat, error) {
	text, err := readLimited(fmt.Sprintf("/proc/%d/stat", pid), statusLimit)
	if err != nil {
		return stat{}, err
	}
	return parseStat(text)
}

// parseStat: the name stands in parentheses and may hold anything, parentheses too; state and parent follow the last one.
func parseStat(text string) (stat, error) {
	begin, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if begin < 0 || end < begin {
		return stat{}, errors.New("stat: no name")
	}
	fields := strings.Fields(text[end+1:])
	if len(fields) < 2 {
		return stat{}, errors.New("stat: no parent")
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return stat{}, errors.New("stat: the parent is no number")
	}
	return stat{name: text[begin+1 : end], parent: parent}, nil
}

func readLimited(path string, limit int64) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, limit))
	return string(text), err
}

// Name is the name of what it runs, 15 bytes at most: of the script where the kernel started an interpreter for it. A process can give
// itself any name.
func (p *Process) Name() (string, error) {
	s, err := p.stat()
	return s.name, err
}

// Parent is the process id of its parent.
func (p *Process) Parent() (int, error) {
	s, err := p.stat()
	return s.parent, err
}

func (p *Process) stat() (stat, error) {
	text, err := p.read("stat", statusLimit)
	if err != nil {
		return stat{}, err
	}
	s, err := parseStat(text)
	if err != nil {
		return stat{}, fmt.Errorf("process %d: %w", p.PID, err)
	}
	return s, nil
}

// UID is the effective user.
func (p *Process) UID() (int, error) {
	v, err := p.status("Uid")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(v) // real, effective, saved, of the file system
	if len(fields) != 4 {
		return 0, fmt.Errorf("process %d: Uid: %q", p.PID, v)
	}
	uid, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0, fmt.Errorf("process %d: Uid: %w", p.PID, err)
	}
	return uid, nil
}

// Catches reports whether the process has a handler of its own for a signal. Without one most signals end it.
func (p *Process) Catches(s unix.Signal) (bool, error) {
	v, err := p.status("SigCgt")
	if err != nil {
		return false, err
	}
	mask, err := strconv.ParseUint(v, 16, 64)
	if err != nil {
		return false, fmt.Errorf("process %d: SigCgt: %w", p.PID, err)
	}
	return mask>>(uint(s)-1)&1 == 1, nil
}

// InnerPID is its process id in its own pid namespace, which may be below ours: 1 for a container's first process.
func (p *Process) InnerPID() (int, error) {
	v, err := p.status("NSpid")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(v) // from ours to its own
	if len(fields) == 0 {
		return 0, fmt.Errorf("process %d: NSpid is empty", p.PID)
	}
	pid, err := strconv.Atoi(fields[len(fields)-1])
	if err != nil {
		return 0, fmt.Errorf("process %d: NSpid: %w", p.PID, err)
	}
	return pid, nil
}

// status is one line of /proc/PID/status.
func (p *Process) status(key string) (string, error) {
	text, err := p.read("status", statusLimit)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(line, ":"); ok && k == key {
			return strings.TrimSpace(v), nil
		}
	}
	return "", fmt.Errorf("process %d: no %s in its status", p.PID, key)
}

// Args is its command line; of one that is longer than 256 KiB, the beginning. They may hold secrets.
func (p *Process) Args() ([]string, error) {
	text, err := p.read("cmdline", argsLimit)
	if err != nil || text == "" {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(text, "\x00"), "\x00"), nil
}

// Environ is the environment that it was started with, NAME=value, whatever it has made of it since; of one that is longer than 1 MiB, the
// beginning. It may hold secrets, and only the same user may read it.
func (p *Process) Environ() ([]string, error) {
	text, err := p.read("environ", envLimit)
	if err != nil || text == "" {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(text, "\x00"), "\x00"), nil
}

// Path is a path in /proc that leads to one as the process sees it: through its root, and from its working directory
// where it is relative. It needs the right to look into the process (the same user), and the process can be
// another by the time that it is used: ask [Process.Ended] after that.
func (p *Process) Path(name string) string {
	if strings.HasPrefix(name, "/") {
		return fmt.Sprintf("/proc/%d/root%s", p.PID, name)
	}
	return fmt.Sprintf("/proc/%d/cwd/%s", p.PID, name)
}

// WorksIn reports whether the working directory of the process is a directory as we see it, by device and inode, so that another mount or
// a link to it is the same. It needs the right to look into the process (the same user, or root).
func (p *Process) WorksIn(dir string) (bool, error) {
	theirs, err := os.Stat(fmt.Sprintf("/proc/%d/cwd/.", p.PID))
	if err != nil || p.Ended() {
		return false, p.failed(err)
	}
	ours, err := os.Stat(dir)
	if err != nil {
		return false, err
	}
	return os.SameFile(theirs, ours), nil
}

func (p *Process) read(name string, limit int64) (string, error) {
	text, err := readLimited(fmt.Sprintf("/proc/%d/%s", p.PID, name), limit)
	if err != nil || p.Ended() {
		return "", p.failed(err)
	}
	return text, nil
}

func (p *Process) failed(err error) error {
	if err == nil || errors.Is(err, unix.ESRCH) || p.Ended() {
		err = os.ErrNotExist
	}
	return fmt.Errorf("process %d: %w", p.PID, err)
}
