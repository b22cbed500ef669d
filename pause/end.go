package pause

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/state"
)

// EndOwn ends the pause of this member's own lease for an owner before the lease does: its reason is gone. It reports on how many
// poolers it has ended it; without a lease it does nothing. It blocks for [member.ConsoleTimeout] at most; what it could not end, the
// keeper ends.
func EndOwn(ctx context.Context, m *member.Member, log *slog.Logger, owner pgb.Owner) (ended int, err error) {
	l, ok := readLease(m, owner)
	if !ok || l.Until.IsZero() {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer cancel()
	k := &keeper{m: m, log: log, lease: l, journal: m.Journal("on_role_change", l.ID), said: map[string]bool{}}
	k.findAtFirst(ctx)
	defer func() {
		for _, p := range k.poolers {
			p.Close()
		}
	}()
	var mu sync.Mutex
	k.each(func(p *watched) {
		did, failed := k.end(ctx, p)
		mu.Lock()
		defer mu.Unlock()
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("pooler %s: %w", p.Name, failed))
			return
		}
		if did {
			ended++
			k.journal.Add(state.Entry{Event: state.EventResumed, Pooler: p.Name, Took: time.Since(l.Since)})
		}
	})
	if err == nil {
		EndLease(m, owner)
	}
	return ended, err
}
