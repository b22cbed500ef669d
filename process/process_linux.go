// Package process holds another process of this machine by a pidfd (Linux 5.3): when it ends and its number is given
// to another process, that one is neither looked at nor signalled. It stands below the clients, which know what their
// process must look like; it knows none of them.
//
// What is read of a process ([Process.Name], [Process.UID], …) comes from /proc by number. It is of this process, or an
// error for which errors.Is(err, os.ErrNotExist) holds: after each look the pidfd tells whether the process still lives.
package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/mitchellh/go-ps"
	"golang.org/x/sys/unix"
)

const (
	statusLimit = 64 << 10  // bytes of /proc/PID/status
	argsLimit   = 256 << 10 // bytes of /proc/PID/cmdline
)

// Process is a process, for ever the same. It is not safe for concurrent use.
type Process struct {
	PID int
	fd  int
}

// Open takes hold of a process. errors.Is(err, os.ErrNotExist): there is none, or it has ended and waits to be reaped.
func Open(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("process %d: %w", pid, os.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("process %d: pidfd_open: %w", pid, err)
	}
	p := &Process{PID: pid, fd: fd}
	if p.Ended() {
		p.Close()
		return nil, fmt.Errorf("process %d: %w", pid, os.ErrNotExist)
	}
	return p, nil
}

// Ended reports whether the process is gone. A zombie is: it takes every signal as if it heard it.
func (p *Process) Ended() bool {
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// Signal sends a signal. An end before it is an [os.ErrNotExist].
func (p *Process) Signal(s unix.Signal) error {
	if p.Ended() {
		return fmt.Errorf("process %d: %s: %w", p.PID, unix.SignalName(s), os.ErrNotExist)
	}
	err := unix.PidfdSendSignal(p.fd, s, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		err = os.ErrNotExist
	}
	if err != nil {
		return fmt.Errorf("process %d: %s: %w", p.PID, unix.SignalName(s), err)
	}
	return nil
}

// Close lets go of the process.
func (p *Process) Close() { _ = unix.Close(p.fd) }

// Name is the name of what it runs, 15 bytes at most: of the script where the kernel started an interpreter for it.
func (p *Process) Name() (string, error) {
	info, err := p.info()
	if err != nil {
		return "", err
	}
	return info.Executable(), nil
}

// Parent is the process id of its parent.
func (p *Process) Parent() (int, error) {
	info, err := p.info()
	if err != nil {
		return 0, err
	}
	return info.PPid(), nil
}

func (p *Process) info() (ps.Process, error) {
	info, err := ps.FindProcess(p.PID)
	if err == nil && info == nil || p.Ended() {
		err = os.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", p.PID, err)
	}
	return info, nil
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

// Path is a path in /proc that leads to one as the process sees it: through its root, and from its working directory
// where it is relative. It needs the right to look into the process (the same user), and the process can be
// another by the time that it is used: ask [Process.Ended] after that.
func (p *Process) Path(name string) string {
	if strings.HasPrefix(name, "/") {
		return fmt.Sprintf("/proc/%d/root%s", p.PID, name)
	}
	return fmt.Sprintf("/proc/%d/cwd/%s", p.PID, name)
}

func (p *Process) read(name string, limit int64) (string, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/%s", p.PID, name))
	if err != nil {
		return "", p.failed(err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, limit))
	if err != nil || p.Ended() {
		return "", p.failed(err)
	}
	return string(text), nil
}

func (p *Process) failed(err error) error {
	if err == nil || errors.Is(err, unix.ESRCH) || p.Ended() {
		err = os.ErrNotExist
	}
	return fmt.Errorf("process %d: %w", p.PID, err)
}
