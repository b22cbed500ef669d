package reload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/configversion"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pause"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

// poolerReload is the reload of one pooler.
type poolerReload struct {
	*reload
	*pgb.Pooler
	alone   bool // no other configured pooler can be on this host
	report  *api.PoolerReload
	console *pgb.Pooler  // that answers: the pooler's, or its process's own socket; nil: none does
	version string       // of PgBouncer, where a console answers
	refused error        // why it is the process that is told, by a signal; nil: the console is
	process *pgb.Process // the pooler's, where it is known to be
	peer    *pgb.Pooler  // its own socket, where our password does not count
	path    string       // of its file; "" when that is not known
	root    string       // in front of path
	before  []pgbini.Setting
	late    error // its own file is not the version that was asked for
}

func (x *poolerReload) close() {
	if x.peer != nil {
		x.peer.Close()
	}
	x.letGo()
}

func (x *poolerReload) letGo() {
	if x.process != nil {
		x.process.Close()
		x.process = nil
	}
}

// forget lets go of a process that has ended, and of all that was its own.
func (x *poolerReload) forget() {
	x.close()
	x.console, x.peer, x.before, x.path, x.root = nil, nil, nil, "", ""
	x.report.File = ""
}

func (x *poolerReload) ended() bool { return x.process != nil && x.process.Ended() }

// errHeld: a handover has begun since the last look, or another process has taken the place of the one that was looked at.
var errHeld = errors.New("held")

// errInterrupted: the caller has gone.
var errInterrupted = errors.New("interrupted")

func (x *poolerReload) run(ctx context.Context) error {
	waiting, cancel := context.WithDeadline(ctx, x.deadline)
	defer cancel()
	if err := x.connect(ctx); err != nil {
		return err
	}
	if err := x.look(ctx, waiting); err != nil {
		return err
	}
	delay := firstArrival
	for attempt := 1; ; attempt++ {
		err := x.once(ctx)
		if errors.Is(err, errHeld) {
			if err := x.look(ctx, waiting); err != nil {
				return err
			}
			if waiting.Err() != nil {
				return &fault{problem: api.ProblemUnreachable, err: fmt.Errorf("not reloaded within %s: its console comes and goes", x.o.Timeout)}
			}
			attempt--
			continue
		}
		var f *fault
		if err == nil || x.m.DryRun || !errors.As(err, &f) || f.problem != api.ProblemNotApplied || ctx.Err() != nil {
			return err
		}
		// The file may have changed between the look at it and the RELOAD: once more, with the file as it is now. And the pooler may have a
		// copy of its own, which arrives later than ours. (That its address is a loopback one says nothing about that: so is a sidecar's.)
		if attempt > 1 {
			if x.o.Version == nil || x.process != nil && x.late == nil || waiting.Err() != nil {
				return err
			}
			x.say(api.TargetPgBouncer, x.Name, "its own file may not have arrived yet, reloading it again in %s: %v", delay, err)
			member.Sleep(waiting, delay)
			delay = min(2*delay, lastArrival)
		}
		if err := x.look(ctx, waiting); err != nil {
			return err
		}
	}
}

// once reads and checks the file, reloads, and verifies.
func (x *poolerReload) once(ctx context.Context) error {
	if x.ended() { // it was restarted while a handover was waited for
		if err := x.connect(ctx); err != nil {
			return err
		}
	}
	file, err := x.readFile()
	if x.ended() {
		return errHeld // what was read may be nobody's
	}
	if err == nil {
		err = x.check(file)
	}
	if err != nil {
		x.report.Done = api.ReloadNot
		return &fault{problem: api.ProblemInvalidFile, err: fmt.Errorf("not reloaded: %w", err)}
	}
	if x.m.DryRun {
		return x.wouldReload(ctx, file)
	}
	if err := x.reloadNow(ctx); err != nil {
		return err
	}
	return x.verify(ctx)
}

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
		return x.goRound(ctx, err)
	}
	x.refused, x.console = nil, x.Pooler
	x.findFile(ctx)
	return nil
}

// goRound is the way round a console that does not answer, or that does not let us reload: its process, by a signal.
func (x *poolerReload) goRound(ctx context.Context, console error) error {
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
			x.letGo()
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
			return "", "", fmt.Errorf("the file of process %d says port %s, and on %s it does not answer: %w", x.process.PID, portOf(file), running, err)
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
		x.letGo()
		return &fault{problem: api.ProblemUnreachable, err: fmt.Errorf("not reloaded: %w; and process %d listens on port %s, not %s: it was not signalled", x.refused, pid, port, want)}
	}
	return nil
}

// look waits until no handover holds the pooler: RELOAD would put back the settings that a pause has changed. What it asks has time of its
// own beside the wait's: an answer that the wait's end cuts off is not a console that refuses us.
func (x *poolerReload) look(ctx, waiting context.Context) error {
	told := false
	for {
		holder, err := x.holder(ctx)
		if ctx.Err() != nil {
			return &fault{problem: api.ProblemHandover, err: fmt.Errorf("not reloaded: %w", errInterrupted)}
		}
		if err != nil {
			// It answered a moment ago.
			if err := x.connect(ctx); err != nil {
				return err
			}
			if holder, err = x.holder(ctx); err != nil {
				return &fault{problem: api.ProblemUnreachable, err: fmt.Errorf("not reloaded: %w", err)}
			}
		}
		if holder == "" && told && x.console != nil {
			x.before, _, err = x.running(ctx) // and not as the pause had set it
			return unless(err, api.ProblemUnreachable, "not reloaded: %w")
		}
		if holder == "" {
			return nil
		}
		if x.m.DryRun {
			x.say(api.TargetPgBouncer, x.Name, "would wait: it is %s", holder)
			return nil
		}
		if !told {
			told = true
			x.say(api.TargetPgBouncer, x.Name, "waiting for the end of a handover: it is %s", holder)
		}
		member.Sleep(waiting, handoverPoll)
		if waiting.Err() != nil && ctx.Err() == nil {
			return &fault{problem: api.ProblemHandover, err: fmt.Errorf("not reloaded: still %s after %s, and RELOAD would undo what the pause has set; pgbaton status says more, pgbaton resume ends it", holder, x.o.Timeout)}
		}
	}
}

// unless is nil without an error, and else a fault.
func unless(err error, problem, format string) error {
	if err == nil {
		return nil
	}
	return &fault{problem: problem, err: fmt.Errorf(format, err)}
}

// holder says who holds the pooler, "" for nobody: by its mark, or by this member's own leases where no console answers.
func (x *poolerReload) holder(ctx context.Context) (string, error) {
	if x.console == nil {
		return x.leaseHolder(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer cancel()
	state, err := x.console.State(ctx)
	if err != nil {
		return "", err
	}
	x.version = state.Version
	paused := "paused"
	if state.PausedKnown && !state.Paused {
		paused = "marked"
	}
	switch {
	case state.Mark != nil:
		return paused + " by " + state.Mark.Owner.String(), nil
	case state.Paused:
		// By hand, or a RELOAD came between mark and PAUSE: a further one would undo the next mark.
		return "paused, not by pgbaton", nil
	}
	// The mark was asked for first: once more, last.
	mark, err := x.console.Holder(ctx)
	if err != nil || mark == nil {
		return "", err
	}
	return "marked by " + mark.Owner.String(), nil
}

func (x *poolerReload) leaseHolder() string {
	for _, l := range pause.Leases(x.m) {
		if time.Now().Before(l.Until) {
			return "paused by " + l.Owner + ", as this member's lease says"
		}
	}
	return ""
}

// readFile is the pooler's file as it is now; nil when it cannot be seen.
func (x *poolerReload) readFile() (*pgbini.File, error) {
	if x.path == "" {
		return nil, nil
	}
	x.report.File = x.path
	return pgbini.ReadFile(x.path, x.root)
}

// check finds what must not be reloaded. Of a file with a line that this PgBouncer refuses, what stands before the line comes into force,
// and the rest of [pgbouncer] goes back to the defaults. A logfile that cannot be opened ends the process at its next line of log; without
// its hba file nobody can log in, and without its certificates TLS is what it was (all 1.18 to 1.26).
func (x *poolerReload) check(file *pgbini.File) error {
	if file == nil {
		return nil
	}
	check := file.CheckAny
	if x.console != nil {
		check = func() error { return file.Check(x.before) }
	}
	if err := check(); err != nil || x.process == nil {
		return err
	}
	is := func(key, value string) bool {
		v, _, _, _ := file.Setting(key)
		return strings.EqualFold(v, value)
	}
	on := func(key string) bool {
		v, _, _, ok := file.Setting(key)
		return ok && v != "" && !strings.EqualFold(v, "disable")
	}
	for _, need := range []struct {
		key       string
		appending bool
		counts    bool
		harm      string
	}{
		{"logfile", true, true, "PgBouncer would end at its next line of log"},
		{"auth_hba_file", false, is("auth_type", "hba"), "nobody could log in"},
		{"client_tls_key_file", false, on("client_tls_sslmode"), "TLS would stay what it was"},
		{"client_tls_cert_file", false, on("client_tls_sslmode"), "TLS would stay what it was"},
		{"client_tls_ca_file", false, on("client_tls_sslmode"), "TLS would stay what it was"},
		{"server_tls_key_file", false, on("server_tls_sslmode"), "TLS would stay what it was"},
		{"server_tls_cert_file", false, on("server_tls_sslmode"), "TLS would stay what it was"},
		{"server_tls_ca_file", false, on("server_tls_sslmode"), "TLS would stay what it was"},
	} {
		value, at, line, ok := file.Setting(need.key)
		if !ok || value == "" || !need.counts {
			continue
		}
		if err := x.process.Opens(value, need.appending); err != nil {
			return fmt.Errorf("%s:%d: %s: %w; %s", at, line, need.key, err, need.harm)
		}
	}
	return nil
}

func (x *poolerReload) reloadNow(ctx context.Context) error {
	// Once more, right before: reading and checking the file took a while.
	if holder, err := x.holder(ctx); err == nil && holder != "" {
		x.report.Done = api.ReloadNot
		return errHeld
	}
	if ctx.Err() != nil {
		return &fault{problem: api.ProblemUnreachable, err: fmt.Errorf("not reloaded: %w", errInterrupted)}
	}
	asking, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer cancel()
	if x.refused == nil {
		err := x.Reload(asking)
		var answered *pgb.ServerError
		switch isAnswer := errors.As(err, &answered); {
		case err == nil:
			x.report.How, x.report.Done = "RELOAD", api.ReloadFailed
			return nil
		case isAnswer && answered.Code == pgb.CodeBadFile:
			x.report.How, x.report.Done = "RELOAD", api.ReloadFailed
			return &fault{problem: api.ProblemInvalidFile, err: fmt.Errorf("%w%s", err, x.nevertheless(ctx))}
		case isAnswer:
			// It lets us look and nothing more (stats_users), or not even that any longer.
			if err := x.goRound(ctx, err); err != nil {
				return err
			}
		default:
			if err := x.connect(ctx); err != nil {
				return err
			}
			if x.refused == nil {
				return errHeld // it is back: look and try again
			}
		}
	}
	if err := x.process.Reload(); err != nil {
		return &fault{problem: api.ProblemUnreachable, err: fmt.Errorf("not reloaded: %w; and %w", x.refused, err)}
	}
	x.report.How, x.report.Done = fmt.Sprintf("SIGHUP to process %d", x.process.PID), api.ReloadFailed
	return nil
}

// nevertheless tells what a reload that was answered by an error has changed.
func (x *poolerReload) nevertheless(ctx context.Context) string {
	after, _, err := x.running(ctx)
	if err != nil {
		return ""
	}
	if x.report.Changed = changes(x.before, after); len(x.report.Changed) == 0 {
		return ""
	}
	return fmt.Sprintf("; %d setting(s) have changed nevertheless", len(x.report.Changed))
}

// verify compares what runs with what the file says now, until it is the same or effectTimeout is over.
func (x *poolerReload) verify(ctx context.Context) error {
	if x.refused != nil && x.HasConsole() {
		opening, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
		err := x.Open(opening)
		cancel()
		if err == nil {
			x.console = x.Pooler // the reload has mended what was wrong with the password
		}
	}
	if x.console == nil {
		x.report.Done = api.ReloadSignaled
		return x.notVerified("no console answers: " + x.refused.Error())
	}
	file, err := x.readFile()
	if err != nil {
		return &fault{problem: api.ProblemInvalidFile, err: fmt.Errorf("after %s: %w", x.report.How, err)}
	}
	x.late = x.behind(file)
	showing, cancel := context.WithTimeout(ctx, effectTimeout)
	defer cancel()
	for {
		after, databases, err := x.running(ctx)
		if err != nil {
			return x.notVerified(err.Error())
		}
		if x.report.Changed = changes(x.before, after); changed(x.report.Changed, "logfile") {
			// It opens the file with its next line of log, which a log-in is.
			x.console.Close()
			if _, _, err := x.running(ctx); err != nil {
				return &fault{problem: api.ProblemNotApplied, err: fmt.Errorf("after %s it does not answer any more; its logfile has changed, and PgBouncer ends where it cannot open it: %w", x.report.How, err)}
			}
		}
		if file == nil {
			return x.byAnswer(after)
		}
		x.report.NotApplied, x.report.NeedsRestart = sorted(file.Diff(after, databases))
		if len(x.report.NotApplied) == 0 {
			if x.late != nil {
				x.report.Done = api.ReloadFailed
				return &fault{problem: api.ProblemNotApplied, err: fmt.Errorf("after %s: %w", x.report.How, x.late)}
			}
			return x.whollySeen(after)
		}
		// An answer is the end of the matter; a signal's effect may be on its way.
		if x.refused == nil || showing.Err() != nil {
			texts := make([]string, len(x.report.NotApplied))
			for i, d := range x.report.NotApplied {
				texts[i] = d.String()
			}
			return &fault{problem: api.ProblemNotApplied, err: fmt.Errorf("after %s: %s", x.report.How, strings.Join(texts, ", "))}
		}
		member.Sleep(showing, 50*time.Millisecond)
	}
}

// behind says what the pooler's own file lacks of the version that was waited for in another one. Only a line stands in the configuration
// itself.
func (x *poolerReload) behind(file *pgbini.File) error {
	line := x.m.Config.Versions.PgBouncer.Line
	if file == nil || x.o.Version == nil || line == "" || x.root == "" && filepath.Clean(x.path) == filepath.Clean(line) {
		return nil
	}
	for _, path := range file.Paths() {
		version, err := configversion.InText(path, file.Comments(path))
		switch {
		case errors.Is(err, configversion.ErrAbsent):
			continue
		case err != nil:
			return fmt.Errorf("its own file: %w", err)
		case version < *x.o.Version:
			return fmt.Errorf("its own file %s has config-version %d, not %d", path, version, *x.o.Version)
		}
		return nil
	}
	if filepath.Base(x.path) != filepath.Base(line) {
		return nil // the line stands in another kind of file, such as userlist.txt, of which the pooler's copy is not known
	}
	return fmt.Errorf("its own file %s has no config-version line", x.path)
}

// byAnswer judges a reload by its answer alone, which since 1.25 is an error for a file that could not be read to its end.
func (x *poolerReload) byAnswer(after []pgbini.Setting) error {
	x.report.Done = api.ReloadDone
	why := x.report.NotVerified
	if x.o.Version != nil || x.refused != nil || !answersForTheFile(x.version) {
		return x.notVerified(why)
	}
	x.report.NotVerified = ""
	return x.whollySeen(after)
}

// answersForTheFile reports whether this version's RELOAD answers an error for a bad file.
func answersForTheFile(version string) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return err1 == nil && err2 == nil && (major > 1 || major == 1 && minor >= 25)
}

// whollySeen: with so_reuseport the console is any one of several processes.
func (x *poolerReload) whollySeen(after []pgbini.Setting) error {
	x.report.Done = api.ReloadDone
	if reuse := setting(after, "so_reuseport"); reuse != "" && reuse != "0" && x.console == x.Pooler && !strings.HasPrefix(x.Name, "/") && !strings.HasPrefix(x.Name, "@") {
		return x.notVerified("so_reuseport is on, and other processes may share this port: give each one's Unix socket as dsn")
	}
	x.report.Verified, x.report.NotVerified = true, ""
	return nil
}

func (x *poolerReload) notVerified(why string) error {
	x.report.NotVerified = why
	return &fault{problem: api.ProblemNotVerified, err: fmt.Errorf("%s was sent, and whether it took cannot be seen: %s", x.report.How, why)}
}

// running asks the console for what is in force.
func (x *poolerReload) running(ctx context.Context) ([]pgbini.Setting, []pgbini.Database, error) {
	ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer cancel()
	settings, err := x.console.Settings(ctx)
	if err != nil {
		return nil, nil, err
	}
	databases, err := x.console.ShowDatabases(ctx)
	return settings, databases, err
}

func changed(differences []api.SettingDifference, key string) bool {
	for _, d := range differences {
		if d.Key == key {
			return true
		}
	}
	return false
}

// wouldReload says how, and what the file would change.
func (x *poolerReload) wouldReload(ctx context.Context, file *pgbini.File) error {
	x.report.Done, x.report.How = api.ReloadWould, "RELOAD"
	if x.refused != nil {
		x.report.How = fmt.Sprintf("SIGHUP to process %d", x.process.PID)
	}
	if file == nil || x.console == nil {
		return nil
	}
	settings, databases, err := x.running(ctx)
	if err != nil {
		return &fault{problem: api.ProblemUnreachable, err: err}
	}
	x.report.Changed, x.report.NeedsRestart = sorted(file.Diff(settings, databases))
	return nil
}
