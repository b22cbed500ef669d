package maintenance

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/peer"
	"github.com/pgbaton/pgbaton/plan"
	"github.com/pgbaton/pgbaton/postgres"
)

// transactions says which transaction on a member is older than allowed; "" where none is.
func (x *run) transactions(ctx context.Context, name string) string {
	limit := x.record.Request.MaxTransaction
	if limit <= 0 {
		return ""
	}
	var open []postgres.Transaction
	if err := x.now.query(ctx, x.m, name, func(ctx context.Context, conn *postgres.Conn) (err error) {
		open, err = conn.OpenTransactions(ctx)
		return err
	}); err != nil {
		return fmt.Sprintf("the transactions on %s cannot be seen: %v", name, err)
	}
	for _, t := range open {
		if t.Age > limit {
			return fmt.Sprintf("a transaction on %s is open for %s, at most %s are allowed (process %d, user %s, %s)", name,
				t.Age.Round(time.Second), limit, t.PID, t.User, t.State)
		}
	}
	return ""
}

const (
	warmUpKill  = 2 * time.Second
	warmUpSaid  = 300 // bytes of what it said that are kept
	autoprewarm = "autoprewarm"
)

// warmUp has a member that was restarted warmed up before the next step.
func (x *run) warmUp(ctx context.Context, at *attempt) error {
	what := x.record.Request.WarmUp
	switch {
	case what == "" || at.Kind == plan.KindSwitchover:
		return nil
	case what == autoprewarm:
		return x.awaitAutoprewarm(ctx, at.Member)
	}
	words := strings.Fields(what)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	target := x.now.members[at.Member]
	cmd.Env = append(os.Environ(), "PGBATON_MEMBER="+at.Member, "PGBATON_HOST="+target.Host, "PGBATON_PORT="+strconv.Itoa(target.Port))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = warmUpKill
	x.live(at.Member, "warm-up", nil)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		if len(out) > warmUpSaid {
			out = out[len(out)-warmUpSaid:]
		}
		return fmt.Errorf("the warm-up of %s: %w: %s", at.Member, err, peer.Text(strings.TrimSpace(string(out))))
	}
	x.note(fmt.Sprintf("%s is warm after %s", at.Member, time.Since(began).Round(time.Millisecond)))
	return nil
}

// awaitAutoprewarm waits until pg_prewarm's workers have read in what was in the buffers before: its leader starts one of them for a
// database after the other (pg_prewarm, autoprewarm.c), so none must be there for a while.
func (x *run) awaitAutoprewarm(ctx context.Context, name string) error {
	const quiet = 4
	for none := 0; none < quiet; {
		var workers, leaders int
		err := x.now.query(ctx, x.m, name, func(ctx context.Context, conn *postgres.Conn) (err error) {
			leaders, workers, err = conn.Autoprewarm(ctx)
			return err
		})
		switch {
		case err == nil && leaders == 0:
			return fmt.Errorf("pg_prewarm's autoprewarm does not run on %s: add pg_prewarm to shared_preload_libraries", name)
		case err == nil && workers == 0:
			none++
		default:
			none = 0
		}
		x.live(name, "until pg_prewarm has read its buffers in", nil)
		member.Sleep(ctx, followEvery)
		if ctx.Err() != nil {
			return fmt.Errorf("pg_prewarm on %s is not ready in time", name)
		}
	}
	return nil
}
