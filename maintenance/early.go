package maintenance

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pause"
)

// hasGuard reports whether a Patroni of this version runs before_stop: since 3.0.3. An unknown version is taken for one that does.
func hasGuard(version string) bool {
	parts := strings.SplitN(version, ".", 3)
	for i, since := range []int{3, 0, 3} {
		if i >= len(parts) {
			return true
		}
		digits := parts[i][:len(parts[i])-len(strings.TrimLeft(parts[i], "0123456789"))] // of "2rc1" too
		n, err := strconv.Atoi(digits)
		if err != nil || n > since {
			return true
		}
		if n < since {
			return false
		}
	}
	return true
}

// resumeTimeout is for the poolers' addresses to lead to the new primary after it takes writes, where the configuration has no other.
const resumeTimeout = 30 * time.Second

// pauseWhereNoGuard pauses the poolers before a step that stops the primary, where its Patroni is older than before_stop. resume ends the
// pause when the addresses that the poolers use lead to a server that takes writes. Where this process is killed, its lease does.
func (x *run) pauseWhereNoGuard(ctx context.Context, at *attempt) (resume func(), err error) {
	nothing := func() {}
	primary, ok := x.now.View.Member(at.Member)
	if !ok || hasGuard(primary.PatroniVersion) || len(x.m.Config.Poolers) == 0 || !x.record.Request.At.IsZero() {
		return nothing, nil
	}
	x.note(fmt.Sprintf("Patroni %s on %s is older than 3.0.3 and runs no before_stop: pgbaton pauses the poolers itself",
		primary.PatroniVersion, at.Member))
	report := pause.Pause(ctx, x.m, pause.Options{ID: x.record.ID})
	if report.Code != member.Done {
		x.spent = report.Code == member.BudgetSpent
		return nothing, errors.New(report.Decision)
	}
	return func() { x.resumeAfter(ctx) }, nil
}

// resumeAfter resumes, also where ctx is over: then at once.
func (x *run) resumeAfter(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, min(resumeTimeout, max(x.m.Config.Pause.Lease-5*time.Second, time.Second)))
	defer cancel()
	for ctx.Err() == nil {
		if _, writable := lookAtRoutes(ctx, x.m).after(x.record.Before); writable != no {
			break // unknown: nothing says that it is not
		}
		member.Sleep(ctx, 100*time.Millisecond)
	}
	finishing, stop := context.WithTimeout(context.WithoutCancel(ctx), member.ConsoleTimeout)
	defer stop()
	report := pause.Resume(finishing, x.m)
	x.log.Info("resumed", "decision", report.Decision, "code", report.Code)
}
