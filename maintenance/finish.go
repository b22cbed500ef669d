package maintenance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/plan"
)

const (
	// verifyTimeout is for everything to be as it should be after the last step: the worker of the new primary resumes within seconds, and
	// Patroni needs two loops of 10 s by default for its members' words in the DCS.
	verifyTimeout = 75 * time.Second
	failedTimeout = 20 * time.Second // the same, after something went wrong
	abortLook     = 4 * time.Second  // for the last look after a stop at once
)

// finish looks at the cluster for the last time, lets the lock go, and writes down how the run ended. It blocks for [verifyTimeout]
// at most, and for [lockTimeout].
func (x *run) finish(ctx context.Context) api.ClusterReport {
	limit := verifyTimeout
	switch {
	case x.abort || ctx.Err() != nil:
		limit = abortLook
	case x.wrong != nil:
		limit = failedTimeout
	}
	looking, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	after := x.verify(looking, ctx)
	if !x.record.State.Over() {
		switch {
		case x.abort:
			x.event(plan.EventAbort)
		case after.OK:
			x.event(plan.EventGood)
		default:
			x.event(plan.EventBad)
		}
	}
	if x.record.State != plan.StateAborted {
		// In the middle of a step the entry stays: Patroni is at work for this run.
		if err := x.lock.release(ctx); err != nil {
			after.LockTaken = true
			x.log.Warn("the run's entry stays in Patroni's configuration", "key", runPrefix+x.record.ID, "error", err)
		}
	} else {
		after.LockTaken = true
	}
	x.left = x.leftOver()
	return x.report(&after)
}

// leftOver is what the run would still do.
func (x *run) leftOver() []plan.Step {
	if x.record.State == plan.StateDone || x.now == nil {
		return nil
	}
	return x.forecast()
}

// verify looks until everything is as it should be, or ctx is over. A caller who has given up is not kept waiting.
func (x *run) verify(ctx, caller context.Context) api.Aftermath {
	for {
		after := x.lookAfter(ctx)
		if after.OK || ctx.Err() != nil || caller.Err() != nil {
			return after
		}
		x.live("", strings.Join(after.Problems, "; "), nil)
		member.Sleep(ctx, lookEvery)
		if ctx.Err() != nil {
			return after // the last one that had time
		}
	}
}

// lookAfter is one last look.
func (x *run) lookAfter(ctx context.Context) api.Aftermath {
	after := api.Aftermath{Writable: string(unknown)}
	s, err := look(ctx, x.m)
	if err != nil {
		after.Problems = []string{err.Error()}
		return after
	}
	x.now = s
	routes := lookAtRoutes(ctx, x.m)
	problems, writable := routes.after(x.record.Before)
	after.Writable, after.Poolers = string(writable), routes.poolers
	after.Problems = slices.Concat(membersAfter(x.record.Before, s, x.timelineWanted(), &after), problems)
	after.OK = len(after.Problems) == 0
	return after
}

// timelineWanted is the least timeline that the primary has to be on: a switchover begins a new one.
func (x *run) timelineWanted() int {
	wanted := x.record.Before.Timeline
	for _, d := range x.record.Done {
		if d.Kind == plan.KindSwitchover && d.Outcome == plan.OutcomeDone {
			wanted++
		}
	}
	return wanted
}

// membersAfter says what is not as it should be with the members. Who was down before the run is no problem of it.
func membersAfter(b before, s *scene, timeline int, after *api.Aftermath) (problems []string) {
	problem := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	leader, led := s.Leader()
	if !led {
		problem("nobody is primary")
	}
	var primaries []string
	for _, p := range s.Members {
		x := s.members[p.Name]
		report := api.MemberReport{Name: p.Name, Role: p.Role, State: p.State, Timeline: p.Timeline, Pending: p.PendingRestart}
		if p.Replay.Known {
			report.LagBytes = p.Replay.Bytes
		}
		after.Members = append(after.Members, report)
		if x.err == nil && x.health.Primary() && p.State == "running" {
			primaries = append(primaries, p.Name)
		}
		switch {
		case p.Leader() && x.err != nil:
			problem("the primary %s does not answer: %v", p.Name, x.err)
		case p.Leader() && p.State != "running":
			problem("the primary %s is %s", p.Name, p.State)
		case p.Leader(), slices.Contains(b.Down, p.Name):
		case x.err != nil:
			problem("%s does not answer: %v", p.Name, x.err)
		case !p.Up():
			problem("%s is %s", p.Name, p.State)
		case led && p.Timeline != leader.Timeline && p.Timeline != 0 && leader.Timeline != 0:
			problem("%s is on timeline %d, and the primary on %d", p.Name, p.Timeline, leader.Timeline)
		}
	}
	for _, name := range b.Members {
		if _, ok := s.Member(name); !ok {
			problem("%s is no longer a member", name)
		}
	}
	switch {
	case len(primaries) > 1:
		problem("%s are primaries, all of them", strings.Join(primaries, " and "))
	case len(primaries) == 1 && led && primaries[0] != leader.Name:
		problem("%s is primary, and %s holds the lock", primaries[0], leader.Name)
	case led && leader.Timeline < timeline:
		problem("the primary is on timeline %d, not on %d or a later one", leader.Timeline, timeline)
	}
	after.Primary, after.Timeline = leader.Name, leader.Timeline
	return problems
}
