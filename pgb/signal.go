package pgb

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	ps "github.com/mitchellh/go-ps"
	"golang.org/x/sys/unix"
)

// Process is a running pgbouncer on this machine, held by a pidfd: when it ends and its number is given to
// another process, that one is never signalled.
type Process struct {
	PID int
	fd  int
}

// OpenPidfile opens the process that a pidfile names. [ErrNotPgBouncer] says that it is something else, an
// error for which errors.Is(err, os.ErrNotExist) holds that there is no such file or process.
func OpenPidfile(path string) (*Process, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, 32))
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil || pid < 1 {
		return nil, fmt.Errorf("%s does not hold a process id", path)
	}
	process, err := OpenProcess(pid)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return process, nil
}

// OpenProcess opens a process by its id if it is a pgbouncer.
func OpenProcess(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("process %d: %w", pid, os.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("process %d: pidfd_open: %w", pid, err)
	}
	// The name is read after the pidfd was opened: if the number has changed hands since, the pidfd
	// belongs to the process that ended, and signalling it fails.
	info, err := ps.FindProcess(pid)
	if err != nil || info == nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("process %d: %w", pid, os.ErrNotExist)
	}
	process := &Process{PID: pid, fd: fd}
	if process.ended() {
		process.Close()
		return nil, fmt.Errorf("process %d: %w", pid, os.ErrNotExist)
	}
	if name := info.Executable(); name != "pgbouncer" {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("process %d is %q: %w; it was not signalled", pid, name, ErrNotPgBouncer)
	}
	return process, nil
}

// Pause sends SIGUSR1, which is PAUSE. Nothing answers.
func (p *Process) Pause() error { return p.signal(unix.SIGUSR1) }

// Resume sends SIGUSR2, which is RESUME. It does not end the pause of a single database.
func (p *Process) Resume() error { return p.signal(unix.SIGUSR2) }

// Reload sends SIGHUP, which is RELOAD.
func (p *Process) Reload() error { return p.signal(unix.SIGHUP) }

func (p *Process) signal(s unix.Signal) error {
	if p.ended() {
		return fmt.Errorf("pgbouncer process %d: %s: %w", p.PID, unix.SignalName(s), unix.ESRCH)
	}
	// A process that is just starting, or only called pgbouncer, has no handler yet, and would die of it.
	switch handled, err := p.handles(s); {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("pgbouncer process %d: %s: %w", p.PID, unix.SignalName(s), unix.ESRCH)
	case err != nil:
		return fmt.Errorf("pgbouncer process %d: %s: not sent: %w", p.PID, unix.SignalName(s), err)
	case !handled:
		return fmt.Errorf("pgbouncer process %d: %s: %w; not sent", p.PID, unix.SignalName(s), ErrNoHandler)
	}
	if err := unix.PidfdSendSignal(p.fd, s, nil, 0); err != nil {
		return fmt.Errorf("pgbouncer process %d: %s: %w", p.PID, unix.SignalName(s), err)
	}
	return nil
}

// ended reports whether the process is gone. A zombie (a container without a first process that reaps has many) is: it
// keeps its name and takes every signal as if it heard it.
func (p *Process) ended() bool {
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// Close lets go of the process.
func (p *Process) Close() { _ = unix.Close(p.fd) }
