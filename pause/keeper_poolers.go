package pause

import (
	"context"
	"slices"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/state"
)

// resolveTimeout is for the names of all poolers. The keeper does not need the answer to resume those that it knows.
const resolveTimeout = 500 * time.Millisecond

// resolved is where the configured names lead now.
type resolved struct {
	poolers []*pgb.Pooler
	errs    []error
}

// resolve looks up the names anew. It blocks for resolveTimeout at most.
func (k *keeper) resolve(ctx context.Context) resolved {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	poolers, _, errs := k.m.Poolers(ctx, nil)
	return resolved{poolers, errs}
}

// findAtFirst makes the poolers of the lease from the addresses that the pauser knew.
func (k *keeper) findAtFirst(ctx context.Context) {
	poolers, _, errs := k.m.Poolers(ctx, k.lease.Book)
	for _, err := range errs {
		k.log.Warn("a pooler is not watched, its name is tried again", "error", err)
	}
	k.missing = len(poolers) == 0
	for _, p := range poolers {
		if names, ok := k.lease.Databases[p.Name]; ok {
			p.Databases = names
		}
		k.poolers = append(k.poolers, &watched{Pooler: p, listed: true})
	}
}

// add adds poolers at addresses that are new: one that has moved is still paused, and is found nowhere else. Known addresses stay, also
// where their names do not lead there any more.
func (k *keeper) add(now resolved) {
	for _, err := range now.errs {
		k.sayOnce("a pooler's name cannot be resolved, going on with the addresses that are known", "error", err)
	}
	for _, known := range k.poolers {
		listed := slices.ContainsFunc(now.poolers, func(p *pgb.Pooler) bool { return p.Name == known.Name })
		known.listed = listed || len(now.errs) > 0
	}
	for _, p := range now.poolers {
		if slices.ContainsFunc(k.poolers, func(known *watched) bool { return p.Name == known.Name }) {
			p.Close()
			continue
		}
		k.poolers = append(k.poolers, &watched{Pooler: p, later: true, listed: true})
	}
}

func (k *keeper) sayOnce(message string, key string, value error) {
	if text := message + value.Error(); !k.said[text] {
		k.said[text] = true
		k.log.Warn(message, key, value)
	}
}

// watch looks at every pooler and reports whether the pause is over on all of them.
func (k *keeper) watch(ctx context.Context) bool {
	k.each(func(p *watched) {
		resumed := false
		p.stands = false
		if !p.HasConsole() {
			p.over = !k.ours() // signals tell nothing; who resumes on this member takes the file away
		} else {
			ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
			defer cancel()
			s, err := p.look(ctx)
			switch {
			case err == nil:
				p.over = p.isOver(s, k.lease)
				resumed = s.NotPaused() // its mark may stay on a little longer
				p.stands = !p.over && s.PauseStands()
				p.resumed = p.resumed || resumed || p.over
			case member.NobodyListens(err) && (!p.listed || p.later):
				p.over = true // its process has ended
			default:
				p.over = !k.ours() // whoever took the file away has seen it resumed
			}
		}
		// Who has resumed may be another member, and write that into a journal of its own.
		if (p.over || resumed) && !p.told && !p.later {
			p.told = true
			k.journal.Add(state.Entry{Event: state.EventPauseOver, Pooler: p.Name, Took: time.Since(k.lease.Since)})
		}
	})
	return !k.missing && !slices.ContainsFunc(k.poolers, func(p *watched) bool { return !p.over })
}

// each calls do for the poolers where the pause may still stand, all at once.
func (k *keeper) each(do func(*watched)) {
	index := map[*pgb.Pooler]*watched{}
	var standing []*pgb.Pooler
	for _, p := range k.poolers {
		if !p.over {
			index[p.Pooler] = p
			standing = append(standing, p.Pooler)
		}
	}
	pgb.Each(standing, func(p *pgb.Pooler) error {
		do(index[p])
		return nil
	})
}

// look is what the pooler says. Which databases the pause is of is known of those that the pauser knew.
func (p *watched) look(ctx context.Context) (pgb.State, error) {
	if p.later {
		return member.StateOfPause(ctx, p.Pooler)
	}
	return p.State(ctx)
}

// isOver decides about a pooler. Of one that was found later only the mark says that the pause is ours.
func (p *watched) isOver(s pgb.State, l lease) bool {
	return leaseOver(s, l.Owner, l.Nonce) || p.later && s.Mark == nil
}

// leaseOver decides whether the pause with this owner and nonce is over on a pooler. Another mark belongs to a later pause,
// which has a keeper of its own. No mark on a paused pooler is a pause of ours that saw a RELOAD. 1.18 cannot say whether it is
// paused: there only server connections prove that it is not, and RESUME at the end of the lease does no harm.
func leaseOver(s pgb.State, owner pgb.Owner, nonce int) bool {
	if s.Mark != nil {
		return s.Mark.Owner != owner && s.Mark.Owner != pgb.Foreign || s.Mark.Nonce != nonce
	}
	if !s.PausedKnown {
		return s.Servers > 0
	}
	return !s.Paused
}

// expire ends the pause where it still stands, and goes on at a pooler that does not answer.
func (k *keeper) expire(ctx context.Context) member.Result {
	k.add(k.resolve(ctx))
	ctx, cancel := context.WithTimeout(ctx, resumeInsists)
	defer cancel()
	failed := make([]bool, len(k.poolers))
	k.each(func(p *watched) {
		ended := false
		err := member.Retry(ctx, func() error {
			ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
			defer cancel()
			var err error
			ended, err = k.end(ctx, p)
			return err
		}, func(err error) bool { return p.later || !p.listed && member.NobodyListens(err) })
		switch {
		case err != nil && (p.later || !p.listed):
			k.log.Warn("a pooler that its name does not lead to (any more, or only just) does not answer: it is left as it is", "pooler",
				p.Name, "error", err)
		case err != nil:
			failed[slices.Index(k.poolers, p)] = true
			k.log.Error("cannot resume: do it by hand (RESUME in its admin console)", "pooler", p.Name, "error", err)
		case ended:
			k.journal.Add(state.Entry{Event: state.EventLeaseExpired, Pooler: p.Name, Took: time.Since(k.lease.Since)})
			k.log.Warn("the lease was over and nobody had resumed: resumed",
				"pooler", p.Name, "paused_for", time.Since(k.lease.Since).Round(time.Millisecond))
		}
	})
	k.journal.Sync()
	if slices.Contains(failed, true) {
		return member.Result{Code: member.Failed, Decision: "a pooler could not be resumed when the lease was over"}
	}
	if k.missing && len(k.poolers) == 0 {
		k.log.Error("the lease is over, and no pooler of it was found: look at the poolers by hand (pgbaton status)")
		return member.Result{Code: member.Failed, Decision: "no pooler was found when the lease was over"}
	}
	return member.Result{Decision: "the lease is over, nothing is paused by it"}
}

// end resumes a pooler and puts its settings back, unless the pause is over there. It reports whether there was something to resume.
func (k *keeper) end(ctx context.Context, p *watched) (bool, error) {
	if !p.HasConsole() {
		return true, p.Signal((*pgb.Process).Resume)
	}
	s, err := p.look(ctx)
	if err != nil {
		if p.Pidfile != "" && k.ours() {
			return true, p.Signal((*pgb.Process).Resume)
		}
		return false, err
	}
	if p.isOver(s, k.lease) {
		return false, nil
	}
	if s.NotPaused() {
		return false, p.Unmark(ctx) // somebody has resumed, and was killed before he could do this, or is about to do it
	}
	if s.Mark == nil || s.Mark.Owner != pgb.Foreign {
		if _, err := p.Resume(ctx); err != nil {
			return false, err
		}
	}
	return true, p.Unmark(ctx)
}
