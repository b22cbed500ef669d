package operation

import (
	"context"
	"fmt"
	"time"

	"github.com/pgbaton/pgbaton/api"
)

// pauseEndsWithin is how long a resume waits for a pause that it cancels, which takes itself back.
const pauseEndsWithin = 5 * time.Second

// Resume resumes the poolers. It is never refused for another operation, and not where nothing can be written down. It blocks for the disk,
// not until it is done: [Runner.Wait]. The errors are [ErrEnding], [ErrKeyReused] and [ErrForgotten].
func (r *Runner) Resume(d Demand) (Operation, error) {
	return r.launch(api.KindResume, true, d, r.resume)
}

// resume ends a pause that is under way, and resumes. It is never refused for another operation: it is what one calls when things stand
// still.
func (r *Runner) resume(ctx context.Context, k *kept) ending {
	r.resuming.Lock() // one after the other: the second finds nothing to do
	defer r.resuming.Unlock()
	r.store.mu.Lock()
	var pausing *kept
	for _, x := range r.store.operations {
		if x.Kind == api.KindPause && x.State == api.Running && x.cancel != nil {
			pausing = x
		}
	}
	if pausing != nil {
		pausing.cancel(errResumed)
	}
	r.store.mu.Unlock()
	if pausing != nil {
		r.store.progress(k, api.Step{Text: "ending the pause that is under way, operation " + pausing.ID})
		timer := time.NewTimer(pauseEndsWithin)
		defer timer.Stop()
		select {
		case <-pausing.done:
		case <-timer.C: // it cannot begin anew: its context has ended
		}
	}
	// A resume that has begun is not worth cutting short: it is bounded by its poolers.
	report := r.calls.Resume(context.WithoutCancel(ctx), r.member)
	for _, p := range report.Poolers {
		r.store.progress(k, api.Step{Pooler: p.Pooler, Text: joinText(p.Done, p.Error)})
	}
	return r.conclude(ctx, report)
}

func joinText(a, b string) string {
	if b == "" {
		return a
	}
	return a + ": " + b
}

// judgeResume: what counts is whether something is paused now.
func judgeResume(_ Operation, v view) ending {
	s := v.status
	if len(s.Unresolved) > 0 || len(s.Poolers) == 0 {
		return ending{state: api.Unknown, text: "no pooler, or not every one, can be found: " + firstOf(s.Problems)}
	}
	for _, p := range s.Poolers {
		switch {
		case p.Error != "":
			return ending{state: api.Unknown, text: "cannot tell yet, " + p.Pooler + ": " + p.Error}
		case p.Paused == "yes" || p.PausedBy != "" || len(p.Databases) > 0:
			return ending{state: api.Failed, final: true, text: p.Pooler + " is paused: ask for a resume again"}
		case p.Paused == "unknown" && p.Servers == 0:
			return ending{state: api.Unknown, final: true, text: p.Pooler +
				" cannot say whether it is paused (PgBouncer before 1.19): ask for a resume again, it does no harm"}
		}
	}
	return ending{state: api.Succeeded, final: true, outcome: &api.Outcome{Decision: fmt.Sprintf("%d pooler(s) are not paused",
		len(s.Poolers))}, text: "nothing is paused"}
}
