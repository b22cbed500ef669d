package pgb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
	"github.com/pgbaton/pgbaton/process"
	"golang.org/x/sys/unix"
)

var (
	// ErrNoProcess says that no pgbouncer of the user runs here.
	ErrNoProcess = errors.New("no pgbouncer process")
	// ErrSeveralProcesses says that it is not clear which one is meant.
	ErrSeveralProcesses = errors.New("several pgbouncer processes")
)

// OnlyProcess opens the only pgbouncer process of a user that can be seen from here. None is an [ErrNoProcess], more than one an
// [ErrSeveralProcesses] with their ids. Processes that have ended and were not reaped do not count.
func OnlyProcess(uid int) (*Process, error) {
	all, err := process.All()
	if err != nil {
		return nil, err
	}
	var found []*Process
	for _, pid := range all {
		process, err := OpenProcess(pid)
		if err != nil {
			continue // something else, or it has ended
		}
		if owner, err := process.UID(); err != nil || owner != uid {
			process.Close()
			continue
		}
		found = append(found, process)
	}
	if len(found) == 1 {
		return found[0], nil
	}
	ids := make([]string, len(found))
	for i, p := range found {
		ids[i] = strconv.Itoa(p.PID)
		p.Close()
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%w of user %d", ErrNoProcess, uid)
	}
	return nil, fmt.Errorf("%w of user %d: %s", ErrSeveralProcesses, uid, strings.Join(ids, ", "))
}

// ConfigFile is the file that the process was started with, and the root to read it through, for [pgbini.ReadFile]: path is
// absolute inside of root, which is "/proc/PID/root", so that the file of a process in another container is found. It
// needs the right to look into the process: the same user, and no change of user since its start.
func (p *Process) ConfigFile() (file, root string, err error) {
	args, err := p.Args()
	if err != nil {
		return "", "", err
	}
	file, ok := configArgument(args)
	if !ok {
		return "", "", fmt.Errorf("process %d: no configuration file in its command line", p.PID)
	}
	root = p.root()
	cwd, ok := process.WorkingDirectory(root)
	if !ok {
		_, err := os.Readlink(root)
		return "", "", fmt.Errorf("process %d: its root and working directory cannot be seen: %w", p.PID, err)
	}
	if !path.IsAbs(file) {
		file = path.Join(cwd, file)
	}
	if p.Ended() { // and what was read may be another process's
		return "", "", fmt.Errorf("process %d: %w", p.PID, os.ErrNotExist)
	}
	return file, root, nil
}

func (p *Process) root() string { return strings.TrimSuffix(p.Path("/"), "/") }

// configArgument is the argument of pgbouncer that is no option, as getopt_long takes them: anywhere in the line.
func configArgument(args []string) (string, bool) {
	var rest []string
	for i := 1; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			rest = append(rest, args[i+1:]...)
			i = len(args)
		case strings.HasPrefix(arg, "--"):
			// Only --user takes a value; long names may be shortened.
			if len(arg) > 2 && strings.HasPrefix("--user", arg) {
				i++
			}
		case strings.HasPrefix(arg, "-") && len(arg) > 1:
			if u := strings.IndexByte(arg, 'u'); u == len(arg)-1 {
				i++
			}
		default:
			rest = append(rest, arg)
		}
	}
	if len(rest) != 1 || rest[0] == "" {
		return "", false
	}
	return rest[0], true
}

// Opens reports whether the process can open a file, as far as we can tell: for reading, or for appending to it, or making it where it is
// not. It opens it itself, in the process's own root, which is proof where the process has our uid; where it has not, it is enough that
// the file, or the folder to make it in, is there. Nothing is made or changed. What cannot be judged is no error: a path that is not
// absolute, one that leads to what somebody has open (/dev/stdout, /proc/1/fd/1), and a pipe that nobody reads.
func (p *Process) Opens(file string, appending bool) error {
	if !path.IsAbs(file) {
		return nil
	}
	root, err := unix.Open(p.root(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // what cannot be seen cannot be judged
	}
	defer unix.Close(root)
	if leadsToSelf(root, file) {
		return nil
	}
	flags := unix.O_RDONLY
	if appending {
		flags = unix.O_WRONLY | unix.O_APPEND
	}
	fd, err := process.OpenIn(root, file, flags|unix.O_NONBLOCK)
	if err == nil {
		_ = unix.Close(fd)
		return nil
	}
	// RESOLVE_IN_ROOT does not follow the links in /proc/PID/fd (EXDEV). A loop of links is the same for the process.
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ENXIO) {
		return nil
	}
	if appending && errors.Is(err, unix.ENOENT) {
		folder, missing := process.OpenIn(root, path.Dir(file), unix.O_PATH|unix.O_DIRECTORY)
		if missing != nil {
			return &os.PathError{Op: "open", Path: path.Dir(file), Err: missing}
		}
		defer unix.Close(folder)
		err = unix.Faccessat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", folder), unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	}
	if uid, unknown := p.UID(); err == nil || (unknown != nil || uid != os.Geteuid()) && !errors.Is(err, unix.ENOENT) {
		return nil
	}
	return &os.PathError{Op: "open", Path: file, Err: err}
}

// leadsToSelf reports whether a path goes through /proc/self or /proc/thread-self, which for us is another place than for the process.
func leadsToSelf(root int, path string) bool {
	return slices.ContainsFunc(file.Walk(fmt.Sprintf("/proc/self/fd/%d", root), path), func(h file.Hop) bool {
		return h.Path() == "/proc/self" || h.Path() == "/proc/thread-self"
	})
}

// PeerConsole is a pooler for the admin console of this very process on its Unix socket, as the user pgbouncer: there it lets in whoever
// has its own uid, without a password (1.18, 1.24, 1.26). Folder and port are where it listens, in the process's own root: those of SHOW
// CONFIG, or else of its file ([pgbini.File.SocketDir], [pgbini.File.Port]), which may have changed since it was started. Nothing is
// connected yet; connecting fails when another process answers. Close the pooler as any other; it does not hold the Process.
func (p *Process) PeerConsole(dir string, port uint16) (*Pooler, error) {
	if dir == "" {
		return nil, fmt.Errorf("process %d has no Unix socket (unix_socket_dir is empty)", p.PID)
	}
	config, err := pgconn.ParseConfig("sslmode=disable user=" + pgbini.AdminDatabase + " dbname=" + pgbini.AdminDatabase)
	if err != nil {
		return nil, err
	}
	socket := ".s.PGSQL." + strconv.Itoa(int(port))
	config.Host, config.Port, config.Password, config.TLSConfig, config.Fallbacks = dir, port, "", nil, nil
	// The host only looks like a Unix socket to pgconn, which would ask the environment for a password otherwise.
	pid, root := p.PID, p.root()
	config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialPeer(ctx, pid, root, dir, socket)
	}
	return &Pooler{Name: path.Join(dir, socket), config: config}, nil
}

// dialPeer connects to a socket in another process's root and makes sure that it is that process's.
func dialPeer(ctx context.Context, pid int, root, dir, socket string) (net.Conn, error) {
	var dialer net.Dialer
	var conn net.Conn
	if strings.HasPrefix(dir, "@") {
		c, err := dialer.DialContext(ctx, "unix", path.Join(dir, socket))
		if err != nil {
			return nil, err
		}
		conn = c
	} else {
		top, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: root, Err: err}
		}
		defer unix.Close(top)
		at := dir
		if !path.IsAbs(dir) {
			cwd, _ := process.WorkingDirectory(root)
			at = path.Join("/", cwd, dir)
		}
		folder, err := process.OpenIn(top, at, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: at, Err: err}
		}
		defer unix.Close(folder)
		if conn, err = dialer.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", folder, socket)); err != nil {
			return nil, err
		}
	}
	if err := checkPeer(conn, pid); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// checkPeer compares who listens. A socket that a service manager has made is process 1's, and one of a process that cannot be
// seen from here is process 0's.
func checkPeer(conn net.Conn, pid int) error {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var failed error
	if err := raw.Control(
		func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) },
	); err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	if int(peer.Pid) != pid && peer.Pid > 1 {
		return fmt.Errorf("process %d listens there, not %d", peer.Pid, pid)
	}
	return nil
}
