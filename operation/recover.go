package operation

import (
	"context"
	"slices"
	"time"

	"github.com/pgbaton/pgbaton/health"
	"github.com/pgbaton/pgbaton/state"

	"github.com/pgbaton/pgbaton/api"
)

const (
	followFirst   = time.Second // between looks at what an operation of before has come to
	followLongest = time.Minute
)

// view is what a judge goes by.
type view struct {
	status  health.Status
	entries []state.Entry // of the journal, oldest first
	now     time.Time
	run     runView
}

// judge tells what an interrupted operation of a kind has come to, as far as can be seen. It gives a failure only
// where it knows more than that the process ended.
type judge func(Operation, view) ending

// judges has one for each kind there is.
func judges() map[string]judge {
	return map[string]judge{api.KindPause: judgePause, api.KindResume: judgeResume, api.KindReloadPostgres: judgeReload,
		api.KindReloadPgBouncer: judgeReload, api.KindCheck: judgeCheck, api.KindSwitchover: judgeRun, api.KindRestart: judgeRun}
}

// recover looks after the operations that an earlier process did not end. It blocks only for the file.
func (r *Runner) recover(ctx context.Context) {
	r.store.mu.Lock()
	operations := slices.Clone(r.store.operations)
	r.store.mu.Unlock()
	for _, k := range operations {
		if k.Over() {
			continue
		}
		if k.State == api.Pending {
			r.store.settle(k, ending{state: api.Failed, final: true, failure: &Failure{Name: Interrupted, Class: api.Transient,
				Detail: "serve ended before it started; nothing was done"},
				text: "never begun: the server had ended"})
			continue
		}
		if k.State == api.Running {
			r.store.settle(k, ending{state: api.Unknown, failure: &Failure{Name: UnknownOutcome, Class: api.Transient,
				Detail: "serve was killed while it ran; its outcome is being determined"},
				text: "serve was killed while it ran; determining its outcome"})
		}
		r.others.Go(func() { r.follow(ctx, k) })
	}
}

// follow looks until it is known what an interrupted operation has come to, or the context ends.
func (r *Runner) follow(ctx context.Context, k *kept) {
	wait := followFirst
	last := ""
	for {
		r.journal.Poll()
		entries, err := state.ReadJournal(r.member.Config.StateDir, 1000)
		if err != nil {
			entries = nil
		}
		status := r.calls.Status(ctx, r.member)
		if ctx.Err() != nil {
			return
		}
		f := judges()[k.Kind](k.Operation, view{status, entries, time.Now(), r.runView(k.Run)})
		if f.final {
			switch {
			case f.failure != nil:
			case f.state == api.Failed:
				f.failure = &Failure{Name: Interrupted, Class: api.Transient, Detail: f.text}
			case f.state == api.Unknown:
				f.failure = &Failure{Name: UnknownOutcome, Class: api.Transient, Detail: f.text}
			}
			r.log.Info("the outcome of an earlier operation is known", "operation", k.ID, "kind", k.Kind, "state", f.state, "text", f.text)
			r.store.settle(k, f)
			return
		}
		if f.text != last {
			r.store.progress(k, api.Step{Text: f.text})
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

func firstOf(texts []string) string {
	if len(texts) == 0 {
		return "nothing is configured"
	}
	return texts[0]
}
