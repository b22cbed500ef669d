package httpapi

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/pgbaton/pgbaton/pause"

	"github.com/pgbaton/pgbaton/api"
)

// Reconciler ends pauses that have outlived their lease: [pause.Reconciler].
type Reconciler interface {
	Round(context.Context) ([]pause.Reconciled, error)
}

const (
	reconcileInterval = 5 * time.Second
	reconcileLongest  = 30 * time.Second // between rounds that fail: waiting clients are disconnected after 120 s
	reconcileTimeout  = 30 * time.Second // of one round
)

// reconcile has one round after the other until the context ends. While it is not known whether this member is the one to do it, it asks
// less and less often.
func (s *Server) reconcile(ctx context.Context) {
	wait, last := reconcileInterval, ""
	for {
		round, cancel := context.WithTimeout(ctx, reconcileTimeout)
		done, err := s.reconciler.Round(round)
		cancel()
		if ctx.Err() != nil {
			return
		}
		for _, r := range done { // the reconciler has logged it
			s.metrics.reconciled.WithLabelValues(r.Done).Inc()
		}
		wait, last = s.reconciled(wait, last, err)
		timer := time.NewTimer(jitter(wait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// reconciled is how long to wait for the next round, and what was wrong with this one, which is logged once.
func (s *Server) reconciled(wait time.Duration, last string, err error) (time.Duration, string) {
	if err == nil {
		return reconcileInterval, ""
	}
	s.metrics.errors.WithLabelValues(api.Transient).Inc()
	if text := err.Error(); text != last {
		s.log.Warn("cannot reconcile at the moment", "error", err)
		last = text
	}
	// One pooler that is down is no reason to leave the others alone for longer.
	if !errors.Is(err, pause.ErrRoleUnknown) {
		return reconcileInterval, last
	}
	return min(2*wait, reconcileLongest), last
}

func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}
