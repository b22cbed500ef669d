package hooks

import (
	"context"
	"slices"
	"sync"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/state"
)

// verify looks for a second whether the pooler's server connections lead here, and has those replaced that do not. PgBouncer shows the
// backend's process id of each (SHOW SERVERS, remote_pid), so no log-in through the pooler is needed, and a connection
// that a client has been given is seen as well.
func (w *worker) verify(ctx context.Context, p *pgb.Pooler) {
	ctx, cancel := context.WithTimeout(ctx, verifyFor)
	defer cancel()
	conn, err := w.local.Connect(ctx)
	if err != nil {
		w.log.Warn("cannot verify where the pooler leads", "pooler", p.Name, "error", err)
		return
	}
	defer conn.Close()
	ours, err := w.oursOnly(ctx, p)
	if err != nil {
		return
	}
	before := map[int32]bool{}
	for ctx.Err() == nil {
		// The sessions are asked for after the pooler was: one that it has and the server has not is not the server's, unless
		// it ended in between; so it counts when it is seen twice.
		servers, err := p.Servers(ctx)
		if err != nil {
			return
		}
		backends, err := conn.ClientBackends(ctx)
		if err != nil {
			if ctx.Err() == nil {
				w.log.Warn("cannot verify where the pooler leads", "pooler", p.Name, "error", err)
			}
			return
		}
		wrong, again := map[int32]bool{}, 0
		for _, s := range servers {
			if _, here := backends[s.RemotePID]; s.RemotePID != 0 && ours[s.Database] && !here {
				wrong[s.RemotePID] = true
				if before[s.RemotePID] {
					again++
				}
			}
		}
		before = wrong
		if again > 0 {
			w.log.Warn("server connections lead elsewhere: replacing them", "pooler", p.Name, "connections", again)
			if err := p.Reconnect(ctx); err != nil {
				w.log.Warn("RECONNECT", "pooler", p.Name, "error", err)
			}
			w.journal.Add(state.Entry{Event: state.EventReconnected, Pooler: p.Name})
			before = map[int32]bool{}
		}
		member.Sleep(ctx, verifyInterval)
	}
}

// oursOnly are the pooler's databases whose address has led here, to the server itself: behind another pooler, SHOW SERVERS has that one's
// process ids.
func (w *worker) oursOnly(ctx context.Context, p *pgb.Pooler) (map[string]bool, error) {
	databases, err := p.ShowDatabases(ctx)
	if err != nil {
		return nil, err
	}
	destinations := member.Destinations(p, databases, false)
	leads := make([]bool, len(destinations))
	var all sync.WaitGroup
	for i, to := range destinations {
		all.Go(func() { leads[i] = w.leadsStraightHere(ctx, to) })
	}
	all.Wait()
	ours := map[string]bool{}
	for _, d := range databases {
		for _, to := range member.Destinations(p, []pgbini.Database{d}, false) {
			i := slices.IndexFunc(destinations, func(other member.Destination) bool { return other.String() == to.String() })
			ours[d.Name] = i >= 0 && leads[i]
		}
	}
	return ours, nil
}

func (w *worker) leadsStraightHere(ctx context.Context, to member.Destination) bool {
	for _, server := range to.Servers(w.local, "") {
		conn, err := server.Connect(ctx)
		if postgres.LoginRefused(err) {
			continue
		}
		if err != nil {
			return false
		}
		defer conn.Close()
		there, err := conn.Identity(ctx)
		if err != nil || !there.SameServer(w.identity()) {
			return false
		}
		direct, err := conn.Direct(ctx)
		return err == nil && direct
	}
	return false
}
