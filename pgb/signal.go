package pgb

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/process"
)

// Process is a running pgbouncer on this machine. When it ends and its number is given to another process, that one is never
// signalled.
type Process struct {
	*process.Process
}

// maxPidfile is more than a process id with its line feed has.
const maxPidfile = 32

// OpenPidfile opens the process that a pidfile names. [ErrNotPgBouncer] says that it is something else, an error for which errors.Is(err,
// os.ErrNotExist) holds that there is no such file or process.
//
// PgBouncer writes its pidfile as the user that it runs as (1.18 to 1.26). So a file, or a symbolic link on the way to it, that belongs
// to somebody else could name any process that is called pgbouncer, and is an [ErrForeignPidfile]; root's and our own are believed.
func OpenPidfile(path string) (*Process, error) {
	f, err := file.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxPidfile))
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
	if err := process.wrote(path, info); err != nil {
		process.Close()
		return nil, err
	}
	return process, nil
}

// wrote checks that what leads to the process is of its own user, of root or of ours.
func (p *Process) wrote(path string, pidfile os.FileInfo) error {
	uid, err := p.UID()
	if err != nil {
		return err
	}
	check := func(path string, info os.FileInfo) error {
		owner := -1
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			owner = int(st.Uid)
		}
		if owner == 0 || owner == uid || owner == os.Geteuid() {
			return nil
		}
		return fmt.Errorf(
			"%s belongs to uid %d, and process %d, which it names, runs as uid %d: %w",
			path,
			owner,
			p.PID,
			uid,
			ErrForeignPidfile,
		)
	}
	for _, hop := range file.Walk("", path) {
		if hop.Target == "" {
			continue
		}
		if link, err := os.Lstat(hop.Path()); err == nil {
			if err := check(hop.Path(), link); err != nil {
				return err
			}
		}
	}
	return check(path, pidfile)
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
