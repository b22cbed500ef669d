package reload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

// connect finds who can be asked, which process it is, and where its file is. The error says that nobody can be told to reload.
func (x *poolerReload) connect(ctx context.Context) error {
	if x.ended() {
		x.forget()
	}
	err := pgb.ErrNoConsole
	if x.HasConsole() {
		asking, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
		x.before, err = x.Settings(asking)
		cancel()
	}
	if ctx.Err() != nil {
		return &fault{problem: api.ProblemUnreachable, err: fmt.Errorf("not reloaded: %w", errInterrupted)}
	}
	if err != nil {
		return x.useProcess(ctx, err)
	}
	x.refused, x.console = nil, x.Pooler
	x.findFile(ctx)
	return nil
}

// useProcess is the way round a console that does not answer, or that does not let us reload: its process, by a signal.
func (x *poolerReload) useProcess(ctx context.Context, console error) error {
	x.refused, x.console = console, nil
	err := x.findProcess(console)
	if err != nil {
		return err
	}
	if x.path, x.root = x.Config, ""; x.path == "" {
		if x.path, x.root, err = x.process.ConfigFile(); err != nil {
			x.path = x.m.Config.Versions.PgBouncer.Line
		}
	}
	return x.connectPeer(ctx)
}

// findFile finds the file of a pooler whose console answers. A process of this machine is the pooler's when it was started with the file
// that the console names, and listens where the console does.
func (x *poolerReload) findFile(ctx context.Context) {
	theirs := setting(x.before, "conffile")
	why := "its file cannot be seen from here"
	if x.Local() && x.process == nil {
		path, root, err := x.tie(ctx, theirs)
		if err == nil {
			x.path, x.root = path, root
		} else {
			x.release()
			why = "its file is not known: " + err.Error()
		}
	}
	switch line := x.m.Config.Versions.PgBouncer.Line; {
	case x.Config != "":
		x.path, x.root = x.Config, ""
	case x.path == "" && line != "" && line == theirs:
		x.path = line
	}
	if x.path == "" {
		x.report.NotVerified = fmt.Sprintf("%s; set poolers[].config (there it is %s)", why, theirs)
	}
}

func (x *poolerReload) tie(ctx context.Context, theirs string) (path, root string, err error) {
	switch {
	case x.Pidfile != "":
		x.process, err = pgb.OpenPidfile(x.Pidfile)
	case x.alone:
		x.process, err = pgb.OnlyProcess(os.Geteuid())
	default:
		err = errors.New("several poolers of this host are configured")
	}
	if err != nil {
		return "", "", err
	}
	if path, root, err = x.process.ConfigFile(); err != nil {
		return "", "", err
	}
	if path != theirs && (filepath.IsAbs(theirs) || !strings.HasSuffix(path, "/"+filepath.Clean(theirs))) {
		return "", "", fmt.Errorf("process %d was started with %s", x.process.PID, path)
	}
	// What is wrong with the file is told when it is read.
	file, err := pgbini.ReadFile(path, root)
	if running := setting(x.before, "listen_port"); err == nil && x.Pidfile == "" && portOf(file) != running {
		// The file is another pooler's, or has changed since the start; then the process listens where the console says.
		if _, err := x.askPeer(ctx, running, setting(x.before, "unix_socket_dir")); err != nil {
			return "", "", fmt.Errorf(
				"the file of process %d says port %s, and on %s it does not answer: %w",
				x.process.PID,
				portOf(file),
				running,
				err,
			)
		}
	}
	return path, root, nil
}

// portOf is where the file says that the pooler listens, as SHOW CONFIG would show it.
func portOf(file *pgbini.File) string {
	if port, ok := file.Port(); ok {
		return strconv.Itoa(int(port))
	}
	value, _, _, _ := file.Setting("listen_port")
	return strconv.Quote(value)
}

func setting(settings []pgbini.Setting, key string) string {
	for _, s := range settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

// findProcess is the way round a console that does not answer: the pidfile's process, else the only pgbouncer here.
func (x *poolerReload) findProcess(console error) error {
	if x.process != nil {
		return nil
	}
	unreachable := func(format string, args ...any) error {
		return &fault{problem: api.ProblemUnreachable, err: fmt.Errorf("not reloaded: "+format, args...)}
	}
	var err error
	switch {
	case x.Pidfile != "":
		x.process, err = pgb.OpenPidfile(x.Pidfile)
	case member.NobodyListens(console):
		// Whatever pgbouncer runs here, it is not the one at that address.
		return unreachable("%w", console)
	case x.Local() && x.alone:
		x.process, err = pgb.OnlyProcess(os.Geteuid())
	case x.Local():
		err = errors.New("several poolers of this host are configured: each needs its pidfile to be signalled")
	default:
		return unreachable("%w", console)
	}
	if err != nil {
		return unreachable("%w; and no signal was sent: %w", console, err)
	}
	return nil
}

// askPeer asks the process's own socket, where our password does not count, and keeps it where it answers.
func (x *poolerReload) askPeer(ctx context.Context, port, dir string) ([]pgbini.Setting, error) {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	peer, err := x.process.PeerConsole(dir, uint16(n))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer cancel()
	running, err := peer.Settings(ctx)
	if err != nil {
		peer.Close()
		return nil, err
	}
	if x.peer != nil {
		x.peer.Close()
	}
	x.peer = peer
	return running, nil
}

// connectPeer opens the process's own socket, and makes sure that the process is the pooler: the running port, or else the file's, is the
// one of the console's address.
func (x *poolerReload) connectPeer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer cancel()
	want, port := strconv.Itoa(int(x.Port())), ""
	var sockets [][2]string // port and folder, the surest first: the file may have changed since the process was started
	if x.before != nil {
		sockets = append(sockets, [2]string{setting(x.before, "listen_port"), setting(x.before, "unix_socket_dir")})
	}
	if x.path != "" {
		if file, err := pgbini.ReadFile(x.path, x.root); err == nil {
			port = portOf(file)
			sockets = append(sockets, [2]string{port, file.SocketDir()})
			if x.HasConsole() && port != want {
				sockets = append(sockets, [2]string{want, file.SocketDir()})
			}
		}
	}
	for _, at := range sockets {
		running, err := x.askPeer(ctx, at[0], at[1])
		if err == nil {
			x.console, x.before, port = x.peer, running, setting(running, "listen_port")
			break
		}
		x.log.Debug("the process's own socket does not answer either", "pooler", x.Name, "port", at[0], "error", err)
	}
	if x.HasConsole() && port != "" && port != want {
		pid := x.process.PID
		x.release()
		return &fault{
			problem: api.ProblemUnreachable,
			err: fmt.Errorf(
				"not reloaded: %w; and process %d listens on port %s, not %s: it was not signalled",
				x.refused,
				pid,
				port,
				want,
			),
		}
	}
	return nil
}
