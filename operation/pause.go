package operation

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pause"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/state"

	"github.com/pgbaton/pgbaton/api"
)

// Pause pauses the poolers. It blocks until that is written down, not until it is done. The errors are [ErrEnding], [ErrKeyReused],
// [ErrForgotten], a [RunningError] or an [UnsavedError].
func (r *Runner) Pause(d Demand, o pause.Options) (Operation, error) {
	return r.launch(api.KindPause, false, d, func(ctx context.Context, k *kept) ending { return r.pause(ctx, k, o) })
}

// pause runs one. Its steps are what the hook writes to the journal.
func (r *Runner) pause(ctx context.Context, k *kept, o pause.Options) ending {
	o.ID = k.ID
	// Ended before the outcome is written down, which has to be the last step; and in any case.
	defer r.journal.Watch(func(e state.Entry) {
		if e.Handover == k.ID && e.Hook == "pause" && e.Event != state.EventAllDrained {
			r.store.progress(k, api.Step{Time: e.Time, Pooler: e.Pooler, Text: stepText(e)})
		}
	})()
	return r.conclude(ctx, r.calls.Pause(ctx, r.member, o))
}

func stepText(e state.Entry) string {
	text := map[string]string{state.EventPauseSent: "PAUSE sent", state.EventDrained: "drained", state.EventNotDrained: "not drained",
		state.EventUndone: "taken back", state.EventResumed: "resumed"}[e.Event]
	if text == "" {
		text = e.Event
	}
	if e.Took > 0 {
		text += " after " + e.Took.Round(time.Millisecond).String()
	}
	if e.Text != "" {
		text += ": " + e.Text
	}
	return text
}

// conclude is what a pause or resume has come to.
func (r *Runner) conclude(ctx context.Context, report pause.Report) ending {
	r.changed()
	outcome := &api.Outcome{Code: report.Code, Decision: report.Decision, Poolers: report.Poolers, Until: report.Until}
	if report.Code == member.Done {
		return ending{state: api.Succeeded, final: true, outcome: outcome, text: report.Decision}
	}
	f := &Failure{Name: PoolerFailed, Class: report.ErrorClass(), Detail: report.Decision, Pooler: poolerOf(report)}
	switch report.Code {
	case member.Invalid:
		f.Name = InvalidConfiguration
	case member.BudgetSpent:
		f.Name = NotDrained
	case member.Refused:
		f.Name = Refused
	}
	if cause := context.Cause(ctx); cause != nil {
		f.Name, f.Class, f.Detail = Interrupted, api.Transient, cause.Error()+"; "+report.Decision
	}
	return ending{state: api.Failed, final: true, outcome: outcome, failure: f, text: report.Decision}
}

// poolerOf is the pooler that failed, when it is one.
func poolerOf(report pause.Report) string {
	failed := slices.DeleteFunc(slices.Clone(report.Poolers), func(p api.PoolerReport) bool { return p.Error == "" })
	if len(failed) == 1 {
		return failed[0].Pooler
	}
	return ""
}

// judgePause: the pause has succeeded when its own last word was that all are drained; it has failed when nothing of it stands and that
// word was not said. A pooler that does not answer, or cannot be found, tells nothing.
func judgePause(o Operation, v view) ending {
	s := v.status
	drained, undone := false, false
	for _, e := range v.entries {
		if e.Hook != "pause" || e.Handover != o.ID {
			continue
		}
		switch e.Event {
		case state.EventAllDrained:
			drained = true
		case state.EventUndone:
			undone = true
		}
	}
	var until time.Time
	for _, l := range s.Leases {
		if l.Owner == pgb.Hand.String() && !l.Since.Before(o.Started.Add(-time.Second)) {
			until = l.Until
		}
	}
	held, free, silent := 0, 0, ""
	if len(s.Unresolved) > 0 {
		silent = s.Unresolved[0]
	}
	outcome := &api.Outcome{Until: until}
	for _, p := range s.Poolers {
		stands := p.Paused == "yes" || len(p.Databases) > 0
		switch {
		case p.Error != "":
			silent = p.Pooler + ": " + p.Error
		case p.PausedBy == pgb.Hand.String() && (stands || p.Paused != "no"), stands && !until.IsZero():
			held++
			outcome.Poolers = append(outcome.Poolers, api.PoolerReport{Pooler: p.Pooler, Done: "paused"})
		default:
			free++
		}
	}
	switch {
	case drained && !undone:
		outcome.Decision = "all poolers were paused and drained"
		text := outcome.Decision + " before the server was killed"
		if free > 0 {
			text += "; the pause is over on some by now"
		}
		return ending{state: api.Succeeded, final: true, outcome: outcome, text: text}
	case silent != "":
		return ending{state: api.Unknown, text: "cannot tell yet, " + silent}
	case len(s.Poolers) == 0:
		return ending{state: api.Unknown, text: "no pooler can be found: " + firstOf(s.Problems)}
	case undone && held == 0:
		return ending{state: api.Failed, final: true, text: "it had been taken back before the server was killed; nothing of it stands"}
	case held == 0:
		return ending{state: api.Failed, final: true, text: "the server was killed before all were drained; nothing of it stands any more"}
	case free > 0:
		return ending{
			state: api.Unknown,
			text:  fmt.Sprintf("%d pooler(s) paused, %d not; the lease ends that%s", held, free, atTime(until)),
		}
	}
	return ending{
		state: api.Unknown,
		text:  fmt.Sprintf("%d pooler(s) paused, not seen drained; the lease ends that%s", held, atTime(until)),
	}
}

func atTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " at " + t.UTC().Format(time.RFC3339)
}
