package hooks

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/state"
)

const (
	standbyReserve = time.Second            // of the budget that is left for the pause when no standby was found
	standbyShort   = 500 * time.Millisecond // the same of the short budget; and how long after it the paused server waits for one
	confirmTimeout = time.Second            // for a standby to make durable what was written until the poolers were drained: some ms
	confirmPause   = time.Millisecond       // between looks at that
)

// awaitStandby waits, while clients work on, until a member that may be promoted streams from this server: what is acknowledged and
// streamed to nobody is lost when another member is promoted, and on a cluster that is seconds old no standby may stream yet (Patroni
// makes their replication slots in its next loop; its REST API says that all is well). It blocks for the budget at most, less what the
// pause needs. In the usual case that is one look of 2 ms.
func (g *guard) awaitStandby(ctx context.Context) *ending {
	plan := g.plan()
	if plan.restart || !plan.stop || g.local == nil {
		return nil // nobody is promoted
	}
	// Where Patroni answers at all, it has told who the members are in some milliseconds.
	g.await(ctx, restHeadStart, func(v view) bool { return v.cluster != nil || !v.answered || !v.silentSince.IsZero() })
	waiting, cancel := g.whilePlanned(ctx)
	defer cancel()
	for first := true; ; first = false {
		replication, err := g.replication(ctx)
		if err != nil {
			g.log.Warn("cannot see whether a standby has what this server has written; that is not waited for", "error", err)
			return nil
		}
		found := g.judge(replication, 0)
		if found.kind != notReady {
			g.standby = found
			return nil
		}
		if first {
			g.log.Info("waiting for a standby that streams before pausing, clients work on", "standbys", found.reason)
		}
		g.makeSlots(ctx, found.missed)
		plan = g.plan()
		if waiting.Err() != nil || !time.Now().Before(g.standbyEnd(plan)) {
			g.standby = found
			if g.awaited = !plan.patient; !g.awaited {
				g.noStandby(found)
			} else {
				g.log.Info("no standby streams yet: pausing, and waiting on for a moment", "standbys", found.reason)
			}
			return nil
		}
		member.Sleep(waiting, lookInterval)
	}
}

// standbyEnd is how long a standby may be waited for: the pause needs the rest of the budget, and policy wait has no end that would do.
func (g *guard) standbyEnd(p plan) time.Time {
	end := p.until
	if g.view.unlimited {
		end = earlier(end, g.view.started.Add(g.view.budget))
	}
	reserve := standbyReserve
	if !p.patient {
		reserve = standbyShort
	}
	return end.Add(-min(reserve, g.m.Config.Pause.Attempt))
}

// noStandby says once that writes may be lost.
func (g *guard) noStandby(found standby) {
	g.log.Error("no standby that may be promoted has all that this server has written: acknowledged writes may be lost by this stop; "+
		"stopping the server is left to Patroni", "standbys", found.reason)
}

// confirmStandby sees, after the drain, that a successor has made durable what was written until then. It blocks for confirmTimeout at
// most. In the usual case that is one look of 2 ms. Where nobody streamed within a short budget it waits on until standbyShort after that:
// a standby that found no slot tries again every 5 s (wal_retrieve_retry_interval), which is as long as that budget.
func (g *guard) confirmStandby(ctx context.Context) *ending {
	plan := g.plan()
	if g.standby.kind != ready && !g.awaited {
		return nil
	}
	end := time.Now().Add(confirmTimeout)
	if g.awaited {
		end = plan.until.Add(standbyShort)
	}
	if !plan.lockEnd.IsZero() {
		end = earlier(end, plan.lockEnd)
	}
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	var after int64
	for g.plan().kind == pauseAndWait {
		replication, err := g.replication(ctx)
		if err != nil && ctx.Err() == nil {
			g.log.Warn("cannot see whether the standby has what was written last", "standby", g.standby.name, "error", err)
			return nil
		}
		if err == nil {
			if after == 0 {
				after = replication.Written // until now, and no further: what does not come through a pooler goes on
			}
			if g.standby = g.judge(replication, after); g.standby.kind == ready {
				return nil
			}
		}
		if ctx.Err() != nil {
			g.standby.kind = notReady
			g.noStandby(g.standby)
			return nil
		}
		member.Sleep(ctx, confirmPause)
	}
	return nil
}

// judge judges whether somebody may take over, by what the server has told. after is what he must have made durable.
func (g *guard) judge(replication postgres.Replication, after int64) standby {
	g.mu.Lock()
	defer g.mu.Unlock()
	return judgeStandbys(standbyView{now: time.Now(), cluster: g.view.cluster, self: g.view.health.Name, recorded: g.recorded,
		replication: replication, after: after})
}

func (g *guard) replication(ctx context.Context) (found postgres.Replication, err error) {
	err = g.askServer(ctx, func(ctx context.Context) error {
		var err error
		found, err = g.local.Replication(ctx)
		g.blind = postgres.Lost(err) || postgres.Timeout(err)
		return err
	})
	return found, err
}

// clusterFile is where a clusterRecord lies in the state directory.
const clusterFile = "cluster.json"

// clusterRecord is what is to be known of the cluster when Patroni does not answer: it takes no questions any more when it shuts down.
type clusterRecord struct {
	Others     []string `json:"others"`                // the other members that may be promoted
	OtherSlots []string `json:"other_slots,omitempty"` // replication slots that are no member's
	NoSlots    bool     `json:"no_slots,omitempty"`    // Patroni makes none
}

// recordOf takes it from what Patroni tells.
func recordOf(cluster patroni.Cluster, self string, dynamic patroni.Dynamic) clusterRecord {
	r := clusterRecord{Others: []string{}}
	for _, m := range cluster.Members {
		if m.Name != self && !m.Leader() && promotable(m.Tags) {
			r.Others = append(r.Others, m.Name)
		}
	}
	if permanent, ok := dynamic.Raw["slots"].(map[string]any); ok {
		r.OtherSlots = slices.Sorted(maps.Keys(permanent))
	}
	if ignored, ok := dynamic.Raw["ignore_slots"].([]any); ok {
		for _, i := range ignored {
			if slot, ok := i.(map[string]any); ok {
				if name, ok := slot["name"].(string); ok {
					r.OtherSlots = append(r.OtherSlots, name)
				}
			}
		}
	}
	server, _ := dynamic.Raw["postgresql"].(map[string]any)
	uses, set := server["use_slots"]
	r.NoSlots = set && !truth(uses)
	return r
}

// recordCluster asks Patroni who is in the cluster and leaves that for the next hook. It blocks for 2 questions to Patroni at most.
func recordCluster(ctx context.Context, m *member.Member) error {
	if m.Config.StateDir == "" || m.DryRun {
		return nil
	}
	client, err := m.Patroni()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*member.RestTimeout)
	defer cancel()
	cluster, err := client.Cluster(ctx)
	if err != nil {
		return err
	}
	dynamic, err := client.Dynamic(ctx)
	if err != nil {
		return err
	}
	return state.Write(filepath.Join(m.Config.StateDir, clusterFile), recordOf(cluster, "", dynamic))
}

// readClusterRecord is empty where there is none.
func readClusterRecord(m *member.Member) (r clusterRecord) {
	if m.Config.StateDir != "" {
		_ = state.Read(filepath.Join(m.Config.StateDir, clusterFile), &r)
	}
	return r
}
