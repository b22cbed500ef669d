package pgb

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/process"
)

// Process is a running pgbouncer on this machine. When it ends and its number is given to another process, that one is never
// signalled.
type Process struct {
	*process.Process
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
	p, err := process.Open(pid)
	if err != nil {
		return nil, err
	}
	name, err := p.Name()
	if err == nil && name != "pgbouncer" {
		err = fmt.Errorf("process %d is %q: %w; it was not signalled", pid, name, ErrNotPgBouncer)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return &Process{p}, nil
}

// Pause sends SIGUSR1, which is PAUSE. Nothing answers.
func (p *Process) Pause() error { return p.signal(unix.SIGUSR1) }

// Resume sends SIGUSR2, which is RESUME. It does not end the pause of a single database.
func (p *Process) Resume() error { return p.signal(unix.SIGUSR2) }

// Reload sends SIGHUP, which is RELOAD.
func (p *Process) Reload() error { return p.signal(unix.SIGHUP) }

func (p *Process) signal(s unix.Signal) error {
	// A process that is just starting, or only called pgbouncer, has no handler yet, and would die of it.
	caught, err := p.Catches(s)
	if err == nil && !caught {
		err = fmt.Errorf("process %d: %s: %w; not sent", p.PID, unix.SignalName(s), ErrNoHandler)
	}
	if err == nil {
		err = p.Signal(s)
	}
	if err != nil {
		return fmt.Errorf("pgbouncer %w", err)
	}
	return nil
}
