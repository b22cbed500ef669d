package member

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"github.com/avast/retry-go/v4"

	"github.com/pgbaton/pgbaton/pgb"
)

// Backoff inside a stall: clients wait, so it starts short.
const (
	firstDelay = 20 * time.Millisecond
	LastDelay  = time.Second
)

// jittered is 20 ms → 1 s, doubled each time, give or take 10 %, so that members that retry the same thing drift apart.
func jittered(n uint, _ error, _ *retry.Config) time.Duration {
	delay := LastDelay
	if n > 0 && n < 7 {
		delay = min(firstDelay<<(n-1), LastDelay)
	}
	tenth := delay / 10
	return delay - tenth + rand.N(2*tenth)
}

// Retry calls do until it succeeds, the context ends, or giveUp says that no repetition will help. It returns the
// last error of do. giveUp may be nil.
func Retry(ctx context.Context, do func() error, giveUp func(error) bool) error {
	var last error
	err := retry.Do(func() error { last = do(); return last },
		retry.Context(ctx),
		retry.Attempts(0), // until the context ends
		retry.DelayType(jittered),
		retry.RetryIf(func(err error) bool { return giveUp == nil || !giveUp(err) }),
		retry.LastErrorOnly(true),
	)
	if err != nil && last != nil {
		return last // rather than "context deadline exceeded"
	}
	return err
}

const (
	paceFirst = 50 * time.Millisecond
	paceLast  = 250 * time.Millisecond
	paceShare = 20
)

// Pace is how long to wait before the next look for something that clients wait for, and have waited for so long: a twentieth of that,
// 50 ms at least and 250 ms at most. A look at the cluster has Patroni ask the DCS and starts a backend on each server that is asked. A
// failover that takes 20 s is looked for 130 times, not 1000 times, and is seen 5 % later at most.
func Pace(waited time.Duration) time.Duration {
	return min(max(paceFirst, waited/paceShare), paceLast)
}

// Sleep waits for a time or the context.
func Sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// IsPermanent: a wrong password does not get better within a handover.
func IsPermanent(err error) bool {
	var refused *pgb.ServerError
	return errors.As(err, &refused) || errors.Is(err, pgb.ErrAuthMethod)
}

// NobodyListens reports whether nobody listens there any more: a pooler that has ended is not paused, and holds nobody up.
func NobodyListens(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist)
}
