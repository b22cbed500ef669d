package reload

import (
	"context"
	"fmt"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pause"
)

// awaitUnpaused waits until no handover holds the pooler: RELOAD would put back the settings that a pause has changed. What it asks has
// time of its own beside the wait's: an answer that the wait's end cuts off is not a console that refuses us.
func (x *poolerReload) awaitUnpaused(ctx, waiting context.Context) error {
	told := false
	for {
		owner, err := x.pausedBy(ctx)
		if ctx.Err() != nil {
			return &fault{problem: api.ProblemHandover, err: fmt.Errorf("not reloaded: %w", errInterrupted)}
		}
		if err != nil {
			// It answered a moment ago.
			if err := x.connect(ctx); err != nil {
				return err
			}
			if owner, err = x.pausedBy(ctx); err != nil {
				return &fault{problem: api.ProblemUnreachable, err: fmt.Errorf("not reloaded: %w", err)}
			}
		}
		if owner == "" && told && x.console != nil {
			x.before, _, err = x.running(ctx) // and not as the pause had set it
			return unless(err, api.ProblemUnreachable, "not reloaded: %w")
		}
		if owner == "" {
			return nil
		}
		if x.m.DryRun {
			x.say(api.TargetPgBouncer, x.Name, "would wait: it is %s", owner)
			return nil
		}
		if !told {
			told = true
			x.say(api.TargetPgBouncer, x.Name, "waiting for the end of a handover: it is %s", owner)
		}
		member.Sleep(waiting, handoverPoll)
		if waiting.Err() != nil && ctx.Err() == nil {
			return &fault{
				problem: api.ProblemHandover,
				err: fmt.Errorf(
					"not reloaded: still %s after %s, and RELOAD would undo what the pause has set; "+
						"pgbaton status says more, pgbaton resume ends it",
					owner,
					x.o.Timeout,
				),
			}
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

// pausedBy says who has paused the pooler, "" for nobody: by its mark, or by this member's own leases where no console answers.
func (x *poolerReload) pausedBy(ctx context.Context) (string, error) {
	if x.console == nil {
		return x.pausedByLease(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer cancel()
	state, err := x.console.State(ctx)
	if err != nil {
		return "", err
	}
	x.version = state.Version
	paused := "paused"
	if state.NotPaused() {
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

func (x *poolerReload) pausedByLease() string {
	for _, l := range pause.Leases(x.m) {
		if time.Now().Before(l.Until) {
			return "paused by " + l.Owner + ", as this member's lease says"
		}
	}
	return ""
}
