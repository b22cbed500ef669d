package maintenance

import (
	"context"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
)

const (
	sampleEvery   = 200 * time.Millisecond
	sampleTimeout = time.Second
)

// meter samples what the poolers' clients go through, from its start to its end. It has connections of its own to the consoles.
type meter struct {
	poolers []*pgb.Pooler
	stop    context.CancelFunc
	done    chan struct{}

	mu     sync.Mutex
	before []pgb.Load
	known  []bool
	since  []time.Time // of the load before
	stall  []time.Time // since when clients were seen waiting for a pooler that is paused; zero: they do not
	cost   api.Cost
	now    api.LiveReport
}

// startMeter begins, with the poolers as the configuration leads to them now, and has looked once when it returns, after
// [member.ConsoleTimeout] at most. A cluster without poolers costs nobody anything that could be seen: nil.
func startMeter(ctx context.Context, m *member.Member) *meter {
	looking, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer cancel()
	all, _, _ := m.Poolers(looking, nil)
	g := &meter{done: make(chan struct{})}
	for _, p := range m.SelectDatabases(looking, m.Log, all) {
		if p.HasConsole() {
			g.poolers = append(g.poolers, p.Another())
		}
	}
	member.CloseAll(all)
	if len(g.poolers) == 0 {
		return nil
	}
	n := len(g.poolers)
	g.before, g.known, g.since, g.stall = make([]pgb.Load, n), make([]bool, n), make([]time.Time, n), make([]time.Time, n)
	ctx, g.stop = context.WithCancel(ctx)
	g.sample(ctx)
	go g.run(ctx)
	return g
}

func (g *meter) run(ctx context.Context) {
	defer close(g.done)
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			g.sample(ctx)
		}
	}
}

func (g *meter) sample(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	loads, errs := make([]pgb.Load, len(g.poolers)), make([]error, len(g.poolers))
	var all sync.WaitGroup
	for i, p := range g.poolers {
		all.Go(func() { loads[i], errs[i] = p.Load(ctx) })
	}
	all.Wait()
	g.add(time.Now(), loads, errs)
}

// add counts one look at all poolers.
func (g *meter) add(at time.Time, loads []pgb.Load, errs []error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now = api.LiveReport{}
	paused := time.Duration(0)
	for i, load := range loads {
		if errs[i] != nil {
			g.now.Unanswered++
			g.known[i] = false
			continue
		}
		g.now.Waiting += load.Waiting
		g.now.MaxWait = max(g.now.MaxWait, load.MaxWait.Seconds())
		if load.Paused {
			g.now.Paused++
		}
		if before := g.before[i]; g.known[i] && before.Paused && load.Paused {
			// Nobody is served meanwhile: who no longer waits has gone, or was sent away.
			g.cost.Errors += max(0, before.Waiting-load.Waiting)
			paused = max(paused, at.Sub(g.since[i]))
		}
		// Of clients that wait for their log-in PgBouncer has no maxwait.
		switch {
		case !load.Paused || load.Waiting == 0:
			g.stall[i] = time.Time{}
		case g.stall[i].IsZero():
			g.stall[i] = at
		}
		if since := g.stall[i]; !since.IsZero() {
			g.now.MaxWait = max(g.now.MaxWait, at.Sub(since).Seconds())
		}
		g.before[i], g.known[i], g.since[i] = load, true, at
	}
	if g.now.Unanswered == len(g.poolers) {
		g.cost.Gaps++
	}
	g.cost.PausedSeconds += paused.Seconds()
	g.cost.Waiting = max(g.cost.Waiting, g.now.Waiting)
	g.cost.StallSeconds = max(g.cost.StallSeconds, g.now.MaxWait)
}

// live is the last look.
func (g *meter) live() api.LiveReport {
	if g == nil {
		return api.LiveReport{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now
}

// end stops it and says what was seen; nil: there was nothing to see.
func (g *meter) end() *api.Cost {
	if g == nil {
		return nil
	}
	g.stop()
	<-g.done
	member.CloseAll(g.poolers)
	cost := g.cost
	return &cost
}
