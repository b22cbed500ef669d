package pause

import (
	"context"
	"slices"
	"sync"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
)

// Refresh resolves the names of the poolers again, between two attempts: one that is new or has moved is taken in, one that did not answer
// before is tried again, and one whose name does not lead to it any more is let go where it does not answer. It must not be called while
// something is paused. It blocks until ctx ends at most. Where a name cannot be resolved the fleet stays as it is.
func (f *Fleet) Refresh(ctx context.Context) {
	if f.restarts != nil {
		return // the pooler of those readers stands beside us, and no other has them
	}
	poolers, book, errs := f.m.Poolers(ctx, nil)
	if len(errs) > 0 || len(poolers) == 0 || ctx.Err() != nil {
		member.CloseAll(poolers)
		f.log.Debug("the names of the poolers cannot be resolved again", "errors", errs)
		return
	}
	var came []*pgb.Pooler
	for _, p := range poolers {
		if slices.ContainsFunc(f.Poolers, func(x *Pooler) bool { return x.Name == p.Name && x.absent == nil }) {
			p.Close()
			continue
		}
		came = append(came, p)
	}
	// At the same time: one that hangs must not take the time of those that have come.
	var both sync.WaitGroup
	var gone map[*Pooler]error
	var attached []*Pooler
	both.Go(func() { gone = f.silent(ctx, poolers) })
	both.Go(func() {
		ours := f.m.LeadingHere(ctx, f.log, f.m.SelectDatabases(ctx, f.log, came))
		for _, p := range came {
			if !slices.Contains(ours, p) {
				p.Close()
			}
		}
		attached = f.attach(ctx, ours)
	})
	both.Wait()
	f.Poolers = slices.DeleteFunc(f.Poolers, func(x *Pooler) bool {
		again := slices.ContainsFunc(attached, func(a *Pooler) bool { return a.Name == x.Name })
		err, silent := gone[x]
		if silent {
			f.log.Warn(
				"a pooler does not answer and its name does not lead to it any more: going on without it",
				"pooler",
				x.Name,
				"error",
				err,
			)
		}
		if again || silent {
			x.Close()
		}
		return again || silent
	})
	for _, x := range attached {
		if x.absent == nil {
			f.log.Info("a pooler has come since the guard began", "pooler", x.Name)
		}
	}
	f.tellKeeper(book, attached)
	f.Poolers = append(f.Poolers, attached...)
}

// silent are the poolers that are not among those now and do not answer.
func (f *Fleet) silent(ctx context.Context, now []*pgb.Pooler) map[*Pooler]error {
	silent := map[*Pooler]error{}
	var mu sync.Mutex
	_ = f.each(func(x *Pooler) error {
		if !x.HasConsole() || slices.ContainsFunc(now, func(p *pgb.Pooler) bool { return p.Name == x.Name }) {
			return nil
		}
		_, err := x.State(ctx)
		if err != nil {
			mu.Lock()
			silent[x] = err
			mu.Unlock()
		}
		return err
	})
	return silent
}

// tellKeeper adds what came to the lease. The keeper hears of it with the next word of the lease, which is before the next PAUSE.
func (f *Fleet) tellKeeper(book member.AddressBook, came []*Pooler) {
	if f.keeper == nil {
		return
	}
	l := &f.keeper.lease
	if l.Book == nil {
		l.Book = member.AddressBook{}
	}
	for host, addresses := range book {
		for _, a := range addresses {
			if !slices.Contains(l.Book[host], a) {
				l.Book[host] = append(slices.Clone(l.Book[host]), a)
			}
		}
	}
	for _, x := range came {
		if x.Databases != nil {
			if l.Databases == nil {
				l.Databases = map[string][]string{}
			}
			l.Databases[x.Name] = x.Databases
		}
	}
	added := *l
	f.startKeeper = func() (*keeperLink, error) { return startKeeper(f.m, false, added) }
}

// Close ends the connections to the poolers. What is paused stays paused.
func (f *Fleet) Close() {
	for _, x := range f.Poolers {
		x.Close()
	}
}
