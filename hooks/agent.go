package hooks

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/peer"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/postgres"
)

const (
	agentAnswer = 4 * time.Second // for an agent's answer: [member.ConsoleTimeout], and then [member.LookTimeout] at most
	// agentMost is how long a resume waits for an agent that has not answered yet. Then the route is looked at from here, as without one.
	agentMost = 5 * time.Second
)

// agents look at the routes of poolers from where those stand: what a pooler there calls 127.0.0.1, or by a name that only that machine
// knows, leads elsewhere from here, or nowhere.
type agents struct {
	clients map[*pgb.Pooler]*api.Client
	done    []func()
	said    map[*pgb.Pooler]bool
	silent  map[*pgb.Pooler]time.Time // since when one does not answer
}

// openAgents makes a client of each pooler's agent; it connects to none.
func (r *route) openAgents(rt *member.Member) {
	r.agents = agents{map[*pgb.Pooler]*api.Client{}, nil, map[*pgb.Pooler]bool{}, map[*pgb.Pooler]time.Time{}}
	for _, p := range r.poolers {
		client, done, err := rt.Agent(p)
		switch {
		case err != nil:
			r.log.Error("the agent of a pooler cannot be asked: change the configuration", "pooler", p.Name, "error", err)
		case client != nil:
			r.agents.clients[p] = client
			r.agents.done = append(r.agents.done, done)
		}
	}
}

func (a agents) close() {
	for _, done := range a.done {
		done()
	}
}

// discovery is what one round of questions has found.
type discovery struct {
	to    map[string]*waypoint
	fresh map[string]bool // not from a cache alone
}

// byAgent asks the agent of a pooler where that leads. It reports false where there is none, or none that answers: then it is looked from
// here. lock guards d and r.
func (r *route) byAgent(ctx context.Context, p *pgb.Pooler, d discovery, lock sync.Locker) bool {
	client := r.agents.clients[p]
	if client == nil {
		return false
	}
	lock.Lock()
	silent := time.Since(r.agents.silent[p]) < routeSilent && time.Since(r.began) > agentMost
	lock.Unlock()
	prefix := "agent " + p.Name + " "
	var report api.RouteReport
	var err error
	if !silent {
		asking, cancel := context.WithTimeout(ctx, agentAnswer)
		report, err = client.Route(asking, "", 0)
		cancel()
	}
	lock.Lock()
	defer lock.Unlock()
	delete(r.unlisted, p)
	known := false
	for key, w := range r.to {
		if strings.HasPrefix(key, prefix) && (silent || err != nil) {
			d.to[key], d.fresh[key], known = w, true, true
		}
	}
	switch {
	case known: // what it has said before
		if err != nil {
			r.agents.silent[p] = time.Now()
		}
		return true
	case silent:
		return false
	case err != nil && ctx.Err() == nil && time.Since(r.began) < agentMost:
		r.unlisted[p] = client.URL
		return true
	case err != nil:
		r.agents.silent[p] = time.Now()
		if !r.agents.said[p] && ctx.Err() == nil {
			r.agents.said[p] = true
			r.log.Error("the agent of a pooler does not answer: where the pooler leads is looked at from here, as far as that can be seen",
				"pooler", p.Name, "agent", client.URL, "error", err)
		}
		return false
	}
	for _, a := range report.Addresses {
		key := prefix + a.Address
		w := r.to[key]
		if w == nil {
			w = newWaypoint(peer.Text(a.Address)+" (as "+p.Name+" sees it)", []*postgres.Server{nil})
			w.agent, w.address = client, a.Address
		}
		d.to[key], d.fresh[key] = w, true
	}
	return true
}

// roundByAgent has the agent look several times.
func (r *route) roundByAgent(ctx context.Context, w *waypoint, looks int) []sight {
	asking, cancel := context.WithTimeout(ctx, agentAnswer)
	defer cancel()
	report, err := w.agent.Route(asking, w.address, looks)
	if ctx.Err() != nil {
		return nil
	}
	i := slices.IndexFunc(report.Addresses, func(a api.RouteAddress) bool { return a.Address == w.address })
	switch {
	case err != nil:
		w.say(ctx, r.log, "the agent does not answer: "+err.Error())
		return []sight{noAnswer}
	case i < 0 || len(report.Addresses[i].Looks) == 0:
		w.say(ctx, r.log, "the pooler does not lead there any more")
		return []sight{notSeen}
	}
	sights := make([]sight, 0, looks)
	for _, l := range report.Addresses[i].Looks {
		sights = append(sights, r.sightOf(ctx, w, l))
	}
	return sights
}

// sightOf is one look of an agent. What it says is checked against this server as a look of our own is: it can delay a resume, and hurry
// one for its own pooler only.
func (r *route) sightOf(ctx context.Context, w *waypoint, l api.RouteLook) sight {
	if l.Failed != "" {
		w.say(ctx, r.log, peer.Text(l.Error))
		return sightOfFailure(l.Failed)
	}
	there := postgres.Identity{SystemID: l.SystemID, PostmasterStart: l.PostmasterStart, InRecovery: l.InRecovery}
	seen, text := r.judgeServer(there, func() bool {
		return r.stood(ctx, w, there, func() (postgres.Replay, error) {
			return postgres.Replay{Up: time.Duration(l.UpMicroseconds) * time.Microsecond, LastXact: l.LastXact}, nil
		})
	})
	w.say(ctx, r.log, text)
	return seen
}
