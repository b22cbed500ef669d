package patroni

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/process"
)

var (
	// ErrNoProcess says that no Patroni of this user can be seen from here.
	ErrNoProcess = errors.New("no Patroni process")
	// ErrManyProcesses says that it is not clear which one is ours.
	ErrManyProcesses = errors.New("several Patroni processes")
)

// Process is the Patroni of this machine, held by a pidfd.
type Process struct {
	PID     int
	process *process.Process
}

// FindProcess finds the Patroni that runs here as our own user, by its command line: a Python that runs a script called patroni (or -m
// patroni), or a program of that name. One without a handler for SIGHUP does not count: it is just starting, or something else, and the
// signal would end it. With config, Patroni's configuration file, it must be among the arguments.
//
// As process 1 Patroni starts itself once more and passes signals on (source: __main__.py, 4.0.7 and 4.1.5): a fork, or with Python 3.14
// a child of a forkserver, which nothing on its command line gives away. It is process 1 that is returned, once the other has its
// handler: before that, what is passed on ends it, and with it process 1 (seen with 4.1.5). A fork's command line is its parent's for the
// moment until it runs something else, so of several below one another the uppermost is the one that surely stays.
//
// The errors are [ErrNoProcess] and [ErrManyProcesses], with the process ids and what to do. It does not block.
func FindProcess(config string) (*Process, error) {
	all, err := process.All()
	if err != nil {
		return nil, fmt.Errorf("patroni: %w", err)
	}
	var found []*candidate
	var passed []string // and why
	for _, pid := range all {
		if pid == os.Getpid() {
			continue
		}
		c, why := examine(pid, config)
		if c != nil && c.first && !hasPython(all, c) {
			c.process.Close()
			c, why = nil, "is just starting: as process 1 it passes signals on, to one that has no handler for SIGHUP yet"
		}
		if c != nil {
			found = append(found, c)
		} else if why != "" {
			passed = append(passed, fmt.Sprintf("%d %s", pid, why))
		}
	}
	top := uppermost(found)
	for _, c := range found {
		if len(top) != 1 || c != top[0] {
			c.process.Close()
		}
	}
	switch {
	case len(top) == 1:
		return &Process{PID: top[0].process.PID, process: top[0].process}, nil
	case len(top) > 1:
		ids := make([]string, len(top))
		for i, c := range top {
			ids[i] = strconv.Itoa(c.process.PID)
		}
		help := "set patroni.config to the file that ours was started with"
		if config != "" {
			help = "all were started with " + config
		}
		return nil, fmt.Errorf("patroni: %w (%s), none was signalled; %s, or send SIGHUP to the right one by hand",
			ErrManyProcesses, strings.Join(ids, ", "), help)
	case len(passed) > 0:
		if len(passed) > 5 {
			passed = append(passed[:5], "…")
		}
		return nil, fmt.Errorf("patroni: %w that can be signalled: %s", ErrNoProcess, strings.Join(passed, "; "))
	}
	return nil, fmt.Errorf("patroni: %w is seen from here; in another container it needs a shared pid namespace", ErrNoProcess)
}

// Reload sends SIGHUP: Patroni reads its file again in the loop that follows, and reloads the server. Nothing answers.
func (p *Process) Reload() error {
	// Asked again: it may have ended its handlers since it was found.
	if caught, err := p.process.Catches(unix.SIGHUP); err != nil || !caught {
		return errors.Join(fmt.Errorf("patroni: process %d does not handle SIGHUP; it was not signalled", p.PID), err)
	}
	if err := p.process.Signal(unix.SIGHUP); err != nil {
		return fmt.Errorf("patroni: %w", err)
	}
	return nil
}

// Close lets go of the process.
func (p *Process) Close() { p.process.Close() }

// IsAncestor reports whether a Patroni, of whatever user, is above this process, through shells or not. Where the REST API does not
// answer, this tells a stop by Patroni from a person who tries the guard by hand. What cannot be seen is no Patroni. It does not block.
func IsAncestor() bool {
	for _, pid := range process.Ancestors(os.Getpid()) {
		p, err := process.Open(pid)
		if err != nil {
			continue
		}
		args, err := p.Args()
		p.Close()
		if _, is := arguments(args); err == nil && is {
			return true
		}
	}
	return false
}

type candidate struct {
	process *process.Process
	parents []int // up to the first process
	first   bool  // process 1 of its pid namespace
}

// examine opens a process that is a Patroni of ours. Of another that looks like one it says why not; neither for all else.
func examine(pid int, config string) (c *candidate, why string) {
	p, err := process.Open(pid)
	if err != nil {
		return nil, ""
	}
	defer func() {
		if c == nil {
			p.Close()
		}
	}()
	args, err := p.Args()
	if err != nil {
		return nil, ""
	}
	rest, ok := arguments(args)
	if !ok {
		return nil, ""
	}
	uid, err := p.UID()
	if err != nil {
		return nil, ""
	}
	if uid != os.Geteuid() {
		return nil, fmt.Sprintf("runs as user %d and we as %d: run pgbaton as that user", uid, os.Geteuid())
	}
	caught, err := p.Catches(unix.SIGHUP)
	if err != nil {
		return nil, ""
	}
	if !caught {
		return nil, "has no handler for SIGHUP: it is just starting, or no daemon"
	}
	if config != "" && !slices.ContainsFunc(rest, func(arg string) bool { return isConfig(p, arg, config) }) {
		return nil, "was not started with " + config + ", which is patroni.config"
	}
	inner, err := p.InnerPID()
	if err != nil {
		return nil, ""
	}
	parents := process.Ancestors(pid)
	if p.Ended() {
		return nil, ""
	}
	return &candidate{process: p, parents: parents, first: inner == 1}, ""
}

// hasPython reports whether a Python, or a Patroni that is none, below the process has a handler for SIGHUP. The server has one
// too, and does not count.
func hasPython(all []int, c *candidate) bool {
	for _, pid := range all {
		if !slices.Contains(process.Ancestors(pid), c.process.PID) {
			continue
		}
		p, err := process.Open(pid)
		if err != nil {
			continue
		}
		args, err := p.Args()
		caught, wrong := p.Catches(unix.SIGHUP)
		p.Close()
		if err == nil && wrong == nil && caught && len(args) > 0 && (isPython(args[0]) || isPatroni(args[0])) {
			return true
		}
	}
	return false
}

// arguments returns what follows Patroni's name in its command line; ok is false for any other program, also for one that only has the
// name among its arguments ("sudo -u patroni bash", "tail -f /var/log/patroni").
func arguments(args []string) (rest []string, ok bool) {
	if len(args) == 0 {
		return nil, false
	}
	if isPatroni(args[0]) {
		return args[1:], true
	}
	if !isPython(args[0]) {
		return nil, false
	}
	for i := 1; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "-m":
			if i+1 < len(args) && args[i+1] == "patroni" {
				return args[i+2:], true
			}
			return nil, false
		case arg == "-W" || arg == "-X" || arg == "--check-hash-based-pycs": // have a value
			i++
		case arg == "-c" || arg == "-":
			return nil, false
		case strings.HasPrefix(arg, "-"):
		default:
			return args[i+1:], isPatroni(arg)
		}
	}
	return nil, false
}

func isPython(file string) bool {
	name := path.Base(file)
	return strings.HasPrefix(name, "python") || strings.HasPrefix(name, "pypy")
}

func isPatroni(file string) bool {
	name := path.Base(file)
	return name == "patroni" || name == "patroni.py"
}

// isConfig reports whether an argument names the configuration file as we see it, or the folder that it is in.
func isConfig(p *process.Process, arg, config string) bool {
	if arg == "" || strings.HasPrefix(arg, "-") {
		return false
	}
	theirs, err := os.Stat(p.Path(arg))
	if err != nil {
		// No right to look into the process, or the file is gone: by name.
		return path.IsAbs(arg) && filepath.Clean(arg) == filepath.Clean(config)
	}
	ours, err := os.Stat(config)
	if err == nil && theirs.IsDir() && !ours.IsDir() {
		ours, err = os.Stat(filepath.Dir(config))
	}
	return err == nil && os.SameFile(theirs, ours)
}

// uppermost leaves out those that have another one above them.
func uppermost(found []*candidate) []*candidate {
	var out []*candidate
	for _, c := range found {
		if !slices.ContainsFunc(found, func(o *candidate) bool { return slices.Contains(c.parents, o.process.PID) }) {
			out = append(out, c)
		}
	}
	return out
}

// ConfigPath is the file or folder that Patroni was started with, as a path that can be opened from here (through the process's root, which
// needs its user). [os.ErrNotExist]: none is named in its command line, so it was started with variables only.
func (p *Process) ConfigPath() (string, error) {
	args, err := p.process.Args()
	if err != nil {
		return "", fmt.Errorf("patroni: %w", err)
	}
	rest, _ := arguments(args)
	for _, arg := range rest {
		if arg != "" && !strings.HasPrefix(arg, "-") {
			return p.process.Path(arg), nil
		}
	}
	return "", fmt.Errorf("patroni: process %d: no configuration file in its command line: %w", p.PID, os.ErrNotExist)
}
