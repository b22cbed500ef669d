package reload

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
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
	x.release()
}

func (x *poolerReload) release() {
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

// errPaused: a handover has begun since the last look, or another process has taken the place of the one that was looked at.
var errPaused = errors.New("paused meanwhile")

// errInterrupted: the caller has gone.
var errInterrupted = errors.New("interrupted")

func (x *poolerReload) run(ctx context.Context) error {
	waiting, cancel := context.WithDeadline(ctx, x.deadline)
	defer cancel()
	if err := x.connect(ctx); err != nil {
		return err
	}
	if err := x.awaitUnpaused(ctx, waiting); err != nil {
		return err
	}
	delay := firstArrival
	for attempt := 1; ; attempt++ {
		err := x.once(ctx)
		if errors.Is(err, errPaused) {
			if err := x.awaitUnpaused(ctx, waiting); err != nil {
				return err
			}
			if waiting.Err() != nil {
				return &fault{
					problem: api.ProblemUnreachable,
					err:     fmt.Errorf("not reloaded within %s: its console breaks off again and again", x.o.Timeout),
				}
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
		if err := x.awaitUnpaused(ctx, waiting); err != nil {
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
		return errPaused // what was read may be nobody's
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

func (x *poolerReload) reloadNow(ctx context.Context) error {
	// Once more, right before: reading and checking the file took a while.
	if owner, err := x.pausedBy(ctx); err == nil && owner != "" {
		x.report.Done = api.ReloadNot
		return errPaused
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
			return &fault{problem: api.ProblemInvalidFile, err: fmt.Errorf("%w%s", err, x.reportChanged(ctx))}
		case isAnswer:
			// It lets us look and nothing more (stats_users), or not even that any longer.
			if err := x.useProcess(ctx, err); err != nil {
				return err
			}
		default:
			if err := x.connect(ctx); err != nil {
				return err
			}
			if x.refused == nil {
				return errPaused // it is back: look and try again
			}
		}
	}
	if err := x.process.Reload(); err != nil {
		return &fault{problem: api.ProblemUnreachable, err: fmt.Errorf("not reloaded: %w; and %w", x.refused, err)}
	}
	x.report.How, x.report.Done = fmt.Sprintf("SIGHUP to process %d", x.process.PID), api.ReloadFailed
	return nil
}

// reportChanged tells what a reload that was answered by an error has changed.
func (x *poolerReload) reportChanged(ctx context.Context) string {
	after, _, err := x.running(ctx)
	if err != nil {
		return ""
	}
	if x.report.Changed = changes(x.before, after); len(x.report.Changed) == 0 {
		return ""
	}
	return fmt.Sprintf("; %d setting(s) have changed anyway", len(x.report.Changed))
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
