package hooks

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
)

const (
	heldAfter    = 200 * time.Millisecond // into an attempt; mostly all is drained by then
	heldInterval = 50 * time.Millisecond  // between looks at who holds a connection
	heldLooks    = 3                      // in which a session was seen to keep its connection without a transaction
)

// heldSessions finds the server connections that a pause does not free however long it lasts: a client keeps them outside of a transaction,
// in a pool of pool_mode session or for replication (replication=database). In other pools a connection is free when its transaction ends.
type heldSessions struct {
	looks map[int32]int // by the backend's process id: looks since it was first seen without a transaction
}

// only reports whether nothing but such sessions is left. servers are the poolers' connections during a pause, sessions are those of the
// server, with whether they are in a transaction. A connection whose backend is not known there may be anything.
func (h *heldSessions) only(servers []pgb.ServerConn, sessions map[int32]bool) bool {
	before := h.looks
	h.looks = map[int32]int{}
	all := len(servers) > 0
	for _, s := range servers {
		busy, known := sessions[s.RemotePID]
		looks := before[s.RemotePID]
		// Once it was without one, whatever it does is a later transaction: a pause lets no other client have that connection.
		if s.Kept && (looks > 0 || known && !busy) {
			looks++
		}
		h.looks[s.RemotePID] = looks
		all = all && known && looks >= heldLooks
	}
	return all
}

// still reports whether a client has one of them.
func (h *heldSessions) still(servers []pgb.ServerConn) bool {
	return slices.ContainsFunc(servers, func(s pgb.ServerConn) bool {
		_, was := h.looks[s.RemotePID]
		return was && s.State == "active"
	})
}

// pids are the backends, for a log.
func (h *heldSessions) pids() string {
	var pids []int32
	for pid := range h.looks {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return strings.Trim(fmt.Sprint(pids), "[]")
}

// watchHeld looks, during an attempt, for who holds connections, and ends the attempt when nothing but sessions without a transaction is
// left. The function that it returns waits for the end of that and returns those sessions, nil where there is something else to wait for.
func (g *guard) watchHeld(trying context.Context, end context.CancelFunc) (held func() *heldSessions) {
	found := make(chan *heldSessions, 1)
	go func() {
		defer close(found)
		member.Sleep(trying, heldAfter)
		if trying.Err() != nil {
			return
		}
		watcher := g.fleet.Watcher()
		if watcher == nil {
			return
		}
		defer watcher.Close()
		h := &heldSessions{}
		for trying.Err() == nil {
			servers, err := watcher.Servers(trying)
			if err != nil {
				return
			}
			sessions, err := g.openSessions(trying)
			if err != nil {
				return
			}
			if h.only(servers, sessions) {
				found <- h
				end()
				return
			}
			member.Sleep(trying, heldInterval)
		}
	}()
	return func() *heldSessions { return <-found }
}

func (g *guard) openSessions(ctx context.Context) (sessions map[int32]bool, err error) {
	err = g.askServer(ctx, func(ctx context.Context) error {
		var err error
		sessions, err = g.local.OpenSessions(ctx)
		g.blind = err != nil
		return err
	})
	return sessions, err
}

// heldOnly goes on when nothing but sessions without a transaction is in the way: for them nobody else waits again. Where the policy is to
// cut what is in the way, the pause stands and the stop goes on. Else they are waited for while clients work, and it reports true when
// they have gone or that time is over: then the drain goes on.
func (g *guard) heldOnly(ctx, waiting context.Context, held *heldSessions) (end *ending, again bool) {
	policy := g.m.Config.Pause.OnTimeout
	if policy != config.OnTimeoutSkip && policy != config.OnTimeoutWait {
		g.outcome = member.Result{
			Code: member.BudgetSpent,
			Decision: fmt.Sprintf("%d pooler(s) paused; only sessions without a transaction "+
				"keep their server connections: policy %s, the stop goes on and they will be cut: pid %s",
				g.fleet.Reachable(), policy, held.pids()),
		}
		return nil, false
	}
	g.log.Info("only sessions without a transaction keep their server connections: everybody is resumed, and clients work while they are "+
		"waited for", "pids", held.pids(), "policy", policy)
	if err := g.fleet.Undo(ctx, false); err != nil {
		g.log.Error("a pause could not be taken back: no further attempt", "error", err)
		return g.policy(ctx), false
	}
	watcher := g.fleet.Watcher()
	if watcher == nil {
		return nil, true
	}
	defer watcher.Close()
	for waiting.Err() == nil {
		servers, err := watcher.Servers(waiting)
		if err != nil || !held.still(servers) {
			break
		}
		member.Sleep(waiting, lookInterval)
	}
	return nil, true
}
