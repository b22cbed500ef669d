package httpapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgbaton/pgbaton/hooks"
)

// Reasons for which an operation is ended.
var (
	errResumed      = errors.New("a resume was asked for")
	errShuttingDown = errors.New("the server is ending")
)

const (
	pauseEndsWithin = 5 * time.Second // a pause that is cancelled takes itself back
	followFirst     = time.Second     // between looks at what an operation of before has come to
	followLongest   = time.Minute
)

// launch begins an operation, or finds the one of the Idempotency-Key. What runs outlives the request.
func (s *Server) launch(d demand, do func(context.Context, *kept)) (*kept, error) {
	s.life.Lock()
	defer s.life.Unlock()
	if s.ending {
		return nil, shuttingDown.problem("no operation is begun any more").retryAfter(5 * time.Second)
	}
	k, fresh, err := s.store.begin(d)
	if unsaved, ok := errors.AsType[errUnsaved](err); ok {
		s.log.Error("an operation could not be written down, so it was not begun", "error", unsaved.error)
		return nil, stateNotKept.problem("the operation was not begun; the log has more").retryAfter(5 * time.Second)
	}
	if err != nil || !fresh {
		return k, err
	}
	s.running.Go(func() {
		ctx, cancel := context.WithCancelCause(context.WithoutCancel(s.work))
		defer cancel(nil)
		stop := context.AfterFunc(s.work, func() { cancel(errShuttingDown) })
		defer stop()
		defer func() {
			if fault := recover(); fault != nil {
				s.log.Error("an operation panicked", "operation", k.ID, "panic", fmt.Sprint(fault))
				s.store.settle(k, stateUnknown, nil, internalError.problem("the log has more"), "a fault of pgbaton: see pgbaton status", true)
			}
		}()
		log := s.log.With("operation", k.ID, "kind", d.kind, "caller", d.caller)
		if err := s.store.start(k, cancel); err != nil && !d.anytime {
			log.Error("an operation could not be written down, so it was not begun", "error", err)
			s.store.settle(k, stateFailed, nil, stateNotKept.problem("it was not begun"), "not begun: the state directory cannot be written", true)
			return
		}
		log.Info("operation started")
		do(ctx, k)
		if o, _, ok := s.store.get(k.ID); ok {
			log.Info("operation ends", "state", o.State, "took", time.Since(o.Started))
			if o.Problem != nil {
				s.metrics.errors.WithLabelValues(o.Problem.Class).Inc()
			}
		}
	})
	return k, nil
}

// pause runs one. Its steps are what the hook writes to the journal.
func (s *Server) pause(ctx context.Context, k *kept, o hooks.PauseOptions) {
	o.ID = k.ID
	s.conclude(ctx, k, func() hooks.Report {
		// Ended before the outcome is written down, which has to be the last step; and in any case.
		defer s.journal.watch(func(e hooks.Entry) {
			if e.Handover == k.ID && e.Hook == "pause" && e.Event != hooks.EventAllDrained {
				s.store.progress(k, Step{Time: e.Time, Pooler: e.Pooler, Text: stepText(e)})
			}
		})()
		return s.calls.Pause(ctx, s.rt, o)
	}())
}

func stepText(e hooks.Entry) string {
	text := map[string]string{hooks.EventPauseSent: "PAUSE sent", hooks.EventDrained: "drained", hooks.EventNotDrained: "not drained",
		hooks.EventUndone: "taken back", hooks.EventResumed: "resumed"}[e.Event]
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

// resume ends a pause that is under way, and resumes. It is never refused for another operation: it is what one calls when things stand still.
func (s *Server) resume(ctx context.Context, k *kept) {
	s.resuming.Lock() // one after the other: the second finds nothing to do
	defer s.resuming.Unlock()
	s.store.mu.Lock()
	var pausing *kept
	for _, x := range s.store.operations {
		if x.Kind == kindPause && x.State == stateRunning && x.cancel != nil {
			pausing = x
		}
	}
	if pausing != nil {
		pausing.cancel(errResumed)
	}
	s.store.mu.Unlock()
	if pausing != nil {
		s.store.progress(k, Step{Text: "ending the pause that is under way, operation " + pausing.ID})
		timer := time.NewTimer(pauseEndsWithin)
		defer timer.Stop()
		select {
		case <-pausing.done:
		case <-timer.C: // it cannot begin anew: its context has ended
		}
	}
	// A resume that has begun is not worth cutting short: it is bounded by its poolers.
	report := s.calls.Resume(context.WithoutCancel(ctx), s.rt)
	for _, p := range report.Poolers {
		s.store.progress(k, Step{Pooler: p.Pooler, Text: joinText(p.Done, p.Error)})
	}
	s.conclude(ctx, k, report)
}

func joinText(a, b string) string {
	if b == "" {
		return a
	}
	return a + ": " + b
}

// conclude writes down how a pause or resume ended.
func (s *Server) conclude(ctx context.Context, k *kept, report hooks.Report) {
	s.status.spoil()
	outcome := &Outcome{Code: report.Code, Decision: report.Decision, Poolers: report.Poolers, Until: report.Until}
	if report.Code == hooks.Done {
		s.store.settle(k, stateSucceeded, outcome, nil, report.Decision, true)
		return
	}
	p := problemOf(report)
	if cause := context.Cause(ctx); cause != nil {
		p = interrupted.problem(cause.Error() + "; " + report.Decision)
		p.Pooler = poolerOf(report)
	}
	s.store.settle(k, stateFailed, outcome, p, report.Decision, true)
}

// problemOf is the problem of a report that is not Done.
func problemOf(report hooks.Report) *Problem {
	k := poolerFailed
	switch report.Code {
	case hooks.Invalid:
		k = invalidConfiguration
	case hooks.BudgetSpent:
		k = notDrained
	case hooks.Refused:
		k = refused
	}
	p := k.problem(report.Decision)
	p.Pooler = poolerOf(report)
	return p
}

// poolerOf is the pooler that failed, when it is one.
func poolerOf(report hooks.Report) string {
	failed := slices.DeleteFunc(slices.Clone(report.Poolers), func(p hooks.PoolerReport) bool { return p.Error == "" })
	if len(failed) == 1 {
		return failed[0].Pooler
	}
	return ""
}

// recover looks after the operations that an earlier server did not end. It blocks only for the file.
func (s *Server) recover(ctx context.Context) {
	s.store.mu.Lock()
	operations := slices.Clone(s.store.operations)
	s.store.mu.Unlock()
	for _, k := range operations {
		if k.over() {
			continue
		}
		if k.State == statePending {
			s.store.settle(k, stateFailed, nil, interrupted.problem("the server ended before it began; nothing was done"), "never begun: the server had ended", true)
			continue
		}
		if k.State == stateRunning {
			s.store.settle(k, stateUnknown, nil, unknownOutcome.problem("the server was killed at it; it is being found out"), "the server was killed at it; looking what it has come to", false)
		}
		s.others.Go(func() { s.follow(ctx, k) })
	}
}

// follow looks until it is known what an interrupted operation has come to, or the context ends.
func (s *Server) follow(ctx context.Context, k *kept) {
	wait := followFirst
	last := ""
	for {
		s.journal.poll()
		entries, err := hooks.ReadJournal(s.rt.Config.StateDir, 1000)
		if err != nil {
			entries = nil
		}
		status := s.calls.Status(ctx, s.rt)
		if ctx.Err() != nil {
			return
		}
		f := finding{}
		switch k.Kind {
		case kindPause:
			f = judgePause(k.Operation, status, entries)
		case kindResume:
			f = judgeResume(status)
		default:
			f = judgeReload(k.Operation, status, time.Now())
		}
		if f.final {
			var p *Problem
			switch f.state {
			case stateFailed:
				p = interrupted.problem(f.text)
			case stateUnknown:
				p = unknownOutcome.problem(f.text)
			}
			s.log.Info("an operation of before is settled", "operation", k.ID, "kind", k.Kind, "state", f.state, "text", f.text)
			s.store.settle(k, f.state, f.outcome, p, f.text, true)
			return
		}
		if f.text != last {
			s.store.progress(k, Step{Text: f.text})
			last = f.text
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		wait = min(2*wait, followLongest)
	}
}

// finding is what an interrupted operation has come to, as far as can be seen.
type finding struct {
	state   string
	final   bool // else: look again
	outcome *Outcome
	text    string
}

// judgePause: the pause has succeeded when its own last word was that all are drained; it has failed when nothing of it stands and that word was not
// said. A pooler that does not answer, or cannot be found, tells nothing.
func judgePause(o Operation, s hooks.Status, entries []hooks.Entry) finding {
	drained, undone := false, false
	for _, e := range entries {
		if e.Hook != "pause" || e.Handover != o.ID {
			continue
		}
		switch e.Event {
		case hooks.EventAllDrained:
			drained = true
		case hooks.EventUndone:
			undone = true
		}
	}
	var until time.Time
	for _, l := range s.Leases {
		if l.Owner == "hand" && !l.Since.Before(o.Started.Add(-time.Second)) {
			until = l.Until
		}
	}
	held, free, silent := 0, 0, ""
	if len(s.Unresolved) > 0 {
		silent = s.Unresolved[0]
	}
	outcome := &Outcome{Until: until}
	for _, p := range s.Poolers {
		stands := p.Paused == "yes" || len(p.Databases) > 0
		switch {
		case p.Error != "":
			silent = p.Pooler + ": " + p.Error
		case p.PausedBy == "hand" && (stands || p.Paused != "no"), stands && !until.IsZero():
			held++
			outcome.Poolers = append(outcome.Poolers, hooks.PoolerReport{Pooler: p.Pooler, Done: "paused"})
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
		return finding{state: stateSucceeded, final: true, outcome: outcome, text: text}
	case silent != "":
		return finding{state: stateUnknown, text: "cannot tell yet, " + silent}
	case len(s.Poolers) == 0:
		return finding{state: stateUnknown, text: "no pooler can be found: " + firstOf(s.Problems)}
	case undone && held == 0:
		return finding{state: stateFailed, final: true, text: "it had been taken back before the server was killed; nothing of it stands"}
	case held == 0:
		return finding{state: stateFailed, final: true, text: "the server was killed before all were drained; nothing of it stands any more"}
	case free > 0:
		return finding{state: stateUnknown, text: fmt.Sprintf("%d pooler(s) paused, %d not; the lease ends that%s", held, free, atTime(until))}
	}
	return finding{state: stateUnknown, text: fmt.Sprintf("%d pooler(s) paused, not seen drained; the lease ends that%s", held, atTime(until))}
}

func atTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " at " + t.UTC().Format(time.RFC3339)
}

func firstOf(texts []string) string {
	if len(texts) == 0 {
		return "nothing is configured"
	}
	return texts[0]
}

// judgeResume: what counts is whether something is paused now.
func judgeResume(s hooks.Status) finding {
	if len(s.Unresolved) > 0 || len(s.Poolers) == 0 {
		return finding{state: stateUnknown, text: "no pooler, or not every one, can be found: " + firstOf(s.Problems)}
	}
	for _, p := range s.Poolers {
		switch {
		case p.Error != "":
			return finding{state: stateUnknown, text: "cannot tell yet, " + p.Pooler + ": " + p.Error}
		case p.Paused == "yes" || p.PausedBy != "" || len(p.Databases) > 0:
			return finding{state: stateFailed, final: true, text: p.Pooler + " is paused: ask for a resume again"}
		case p.Paused == "unknown" && p.Servers == 0:
			return finding{state: stateUnknown, final: true, text: p.Pooler + " cannot say whether it is paused (PgBouncer before 1.19): ask for a resume again, it does no harm"}
		}
	}
	return finding{state: stateSucceeded, final: true, outcome: &Outcome{Decision: fmt.Sprintf("%d pooler(s) are not paused", len(s.Poolers))}, text: "nothing is paused"}
}
