package hooks

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pause"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/state"
)

// attachTime is how long poolers, and the keeper, may take while it is not known how much time there is. A busy machine, or a container at
// the end of its share of the processor, needs a good part of it for a few log-ins; one that is down, and refuses, costs nothing.
const attachTime = time.Second

// preparation is all that can be done before it is known whether there is something to pause: find the poolers, look at them, and
// start the keeper. It touches no pooler.
type preparation struct {
	started time.Time
	done    chan struct{} // closed when the rest may be read
	arming  atomic.Bool   // the keeper is being started, which nothing interrupts
	cancel  context.CancelFunc

	fleet   *pause.Fleet
	poolers []*pgb.Pooler
	none    bool  // no database of any pooler leads to this cluster
	err     error // no keeper
}

func (g *guard) prepare(ctx context.Context) *preparation {
	ctx, cancel := context.WithCancel(ctx)
	f := pause.NewFleet(g.m, g.log, g.journal, g.owner(), g.m.Config.Pause.Lease, func(ctx context.Context) (int, error) {
		open, err := g.look(ctx)
		return len(open), err
	})
	p := &preparation{started: time.Now(), done: make(chan struct{}), cancel: cancel, fleet: f}
	go func() {
		defer close(p.done)
		poolers, book, errs := g.m.Poolers(ctx, nil)
		for _, err := range errs {
			g.log.Error("pooler left out: its clients are not held", "error", err)
		}
		p.poolers = poolers
		ours := g.ours(ctx, poolers)
		p.none = len(ours) == 0 && len(poolers) > 0 && len(errs) == 0
		var both sync.WaitGroup
		if !g.m.DryRun {
			p.arming.Store(true)
			both.Go(func() {
				defer p.arming.Store(false)
				p.err = f.Arm(false, book, poolers)
			})
		}
		both.Go(func() { f.Attach(ctx, ours) })
		both.Wait()
	}()
	return p
}

// close releases what was prepared; what was paused stands.
func (p *preparation) close() {
	p.cancel()
	release := func() {
		p.fleet.Leave()
		p.fleet.Close()
		member.CloseAll(p.poolers)
	}
	select {
	case <-p.done:
		release()
	default: // nobody waits for it; mostly the process ends with it
		go func() {
			<-p.done
			release()
		}()
	}
}

// wait blocks until the preparation is complete, or the plan leaves no time for poolers that do not answer. It reports false where the plan
// is to let the stop go on: then nobody waits for the preparation.
func (g *guard) wait(p *preparation) bool {
	tick := time.NewTicker(planInterval)
	defer tick.Stop()
	var hurry time.Time
	for {
		select {
		case <-p.done:
			return true
		case <-tick.C:
		}
		plan, now := g.plan(), time.Now()
		if plan.kind == proceed {
			return false
		}
		if plan.kind == sendPause && hurry.IsZero() {
			hurry = now.Add(sendPauseTimeout)
			// Nobody else is the primary while the lock lasts, which nobody renews.
			if end := earlier(now.Add(attachTime), plan.lockEnd); end.After(hurry) {
				hurry = end
			}
		}
		took := now.Sub(p.started)
		late := plan.kind == pauseAndWait && !now.Before(plan.until) || !hurry.IsZero() && now.After(hurry) ||
			!plan.patient && took > attachTime || took > max(g.m.Config.Pause.Attempt, attachTime)
		if late && !p.arming.Load() { // while the keeper starts, poolers that answer late cost nothing
			p.cancel()
		}
	}
}

// takePoolers waits for the preparation and takes over what it found. It ends the handover where nothing can be paused.
func (g *guard) takePoolers(p *preparation) *ending {
	prepared, plan := g.wait(p), g.plan()
	goesOn := !prepared || plan.kind == proceed
	if !goesOn && p.err != nil {
		return &ending{Result: member.Result{Code: member.Failed, Decision: "nothing is paused: " + p.err.Error()}}
	}
	g.journal.Add(state.Entry{Event: state.EventStarted, Text: plan.reason})
	if goesOn {
		return &ending{Result: member.Result{Code: plan.code, Decision: plan.reason}}
	}
	g.fleet = p.fleet
	if p.none {
		here := "cluster"
		if g.ofReplica() {
			here = "server"
		}
		return &ending{Result: member.Result{Decision: "no database of any pooler leads to this " + here + ": nothing to pause"}}
	}
	g.fleet.ReportAbsent()
	if g.fleet.Reachable() == 0 {
		return &ending{Result: member.Result{Code: member.Failed,
			Decision: "no pooler can be reached: nothing is paused, the stop goes on as it would without pgbaton"}}
	}
	return nil
}
