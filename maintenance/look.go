package maintenance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/plan"
)

// lookTimeout bounds one look: Patroni reads the DCS for it, and each member is asked.
const lookTimeout = 12 * time.Second

// scene is the cluster as one look has found it: what plans go by, and how to reach everybody.
type scene struct {
	plan.View
	scope   string
	dynamic patroni.Dynamic
	self    string // the member that we are on, as Patroni calls it
	members map[string]*seen
}

// seen is one member of a scene.
type seen struct {
	patroni.Member
	health patroni.Health // of its own words; zero with err
	err    error          // why its REST API did not answer
}

// look looks at the cluster: at the view that all members share (GET /cluster, which Patroni reads from the DCS for it), at the dynamic
// configuration, and at every member through its own REST API (GET /leader). It blocks for [lookTimeout] at most. A member that does not
// answer is not Reachable; without the shared view there is an error.
func look(ctx context.Context, m *member.Member) (*scene, error) {
	client, err := m.Patroni()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	cluster, err := client.Cluster(ctx)
	if err != nil {
		return nil, fmt.Errorf("the cluster cannot be looked at: %w", err)
	}
	dynamic, err := client.Dynamic(ctx)
	if err != nil {
		return nil, fmt.Errorf("the cluster's configuration cannot be read: %w", err)
	}
	s := &scene{scope: cluster.Scope, dynamic: dynamic, members: map[string]*seen{}}
	var all sync.WaitGroup
	for _, x := range cluster.Members {
		one := &seen{Member: x}
		s.members[x.Name] = one
		all.Go(func() { one.ask(ctx, client) })
	}
	own, ownErr := client.Leader(ctx)
	all.Wait()
	if ownErr == nil {
		s.self = own.Name
		if s.scope == "" {
			s.scope = own.Scope
		}
	}
	s.View = viewOf(cluster, dynamic, s.members, time.Now())
	return s, nil
}

// lookToChoose is look with what else a candidate is chosen by: logical slots, and labels where they are asked for.
func lookToChoose(ctx context.Context, m *member.Member, r Request) (*scene, error) {
	s, err := look(ctx, m)
	if err != nil {
		return nil, err
	}
	s.lookAtSlots(ctx, m)
	s.lookAtLabels(ctx, m, r)
	return s, nil
}

// looksBefore is how often a member that does not answer is asked before a run is refused because of it: a machine under load may miss one.
const looksBefore = 3

// patiently looks and judges, and looks again where a refusal may come from a member that has only not answered in time.
func patiently(ctx context.Context, m *member.Member, r Request, judge func(*scene) error) error {
	for try := 1; ; try++ {
		s, err := lookToChoose(ctx, m, r)
		if err != nil {
			return err
		}
		if err = judge(s); err == nil || !s.silent() || try == looksBefore || ctx.Err() != nil {
			return err
		}
		member.Sleep(ctx, lookEvery)
	}
}

// silent reports whether a member did not answer.
func (s *scene) silent() bool {
	return slices.ContainsFunc(s.Members, func(p plan.Member) bool { return !p.Reachable })
}

// ask asks the member itself. A GET needs no credentials, and the address is what that member has written.
func (x *seen) ask(ctx context.Context, client *patroni.Client) {
	there, err := client.Bare().At(x.APIURL)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, member.RestTimeout)
		defer cancel()
		x.health, err = there.Leader(ctx)
	}
	if err == nil && x.health.Name != "" && x.health.Name != x.Name {
		err = fmt.Errorf("at its address %s answers member %s", x.APIURL, x.health.Name)
		x.health = patroni.Health{}
	}
	x.err = err
}

// viewOf puts together what was seen.
func viewOf(cluster patroni.Cluster, dynamic patroni.Dynamic, members map[string]*seen, now time.Time) plan.View {
	v := plan.View{
		Maintenance: cluster.Paused, Scheduled: cluster.ScheduledSwitchover, LoopWait: dynamic.LoopWait, TTL: dynamic.TTL,
		Sync: syncMode(dynamic.Raw["synchronous_mode"]), CheckTimeline: dynamic.Raw["check_timeline"] == true,
		MaximumLag: defaultMaximumLag,
	}
	if most, ok := dynamic.Raw["maximum_lag_on_failover"].(float64); ok && most >= 0 && most < 1<<60 {
		v.MaximumLag = int64(most)
	}
	written := int64(0) // by the leader
	if leader, ok := cluster.Leader(); ok {
		written = members[leader.Name].health.WAL.Written
	}
	for _, x := range cluster.Members {
		v.Members = append(v.Members, members[x.Name].planned(written, now))
	}
	return v
}

// defaultMaximumLag is Patroni's maximum_lag_on_failover where none is set (global_config.py, 4.0.7).
const defaultMaximumLag = 1 << 20

// syncMode reads synchronous_mode as Patroni does (global_config.py, 4.0.7).
func syncMode(value any) plan.SyncMode {
	switch text := strings.ToLower(fmt.Sprint(value)); text {
	case "quorum":
		return plan.SyncQuorum
	case "on", "true", "t", "yes", "y", "1":
		return plan.SyncOn
	}
	return plan.SyncOff
}

// planned is the member as plans know it. What it says of itself is newer than what it has written into the DCS in its last loop.
func (x *seen) planned(written int64, now time.Time) plan.Member {
	p := plan.Member{Name: x.Name, Role: x.Role, State: x.State, Timeline: x.Timeline, Receive: x.Lag, Tags: x.Tags,
		PendingRestart: x.PendingRestart, Pending: x.PendingRestartReason, Reachable: x.err == nil}
	if x.err != nil {
		return p
	}
	h := x.health
	p.PatroniVersion, p.ServerVersion, p.Started, p.WatchdogFailed = h.Version, h.ServerVersion, h.PostmasterStart, h.WatchdogFailed
	p.PendingRestart, p.Pending = h.PendingRestart, h.PendingRestartReason
	if h.Tags != nil {
		p.Tags = h.Tags
	}
	if h.Timeline > 0 {
		p.Timeline = h.Timeline
	}
	p.State = h.State
	if h.Replication != "" && !h.Primary() {
		p.State = h.Replication
	}
	if x.Leader() {
		return p
	}
	w := h.WAL
	p.ReplayPaused = w.ReplayPaused
	if written > 0 && w.Received > 0 {
		p.Receive = patroni.Lag{Bytes: max(0, written-w.Received), Known: true}
	}
	if p.Receive.Known && w.Replayed > 0 {
		p.Replay = patroni.Lag{Bytes: p.Receive.Bytes + max(0, w.Received-w.Replayed), Known: true}
	}
	if w.Received > w.Replayed && !w.ReplayedAt.IsZero() {
		p.ReplayAge = max(0, now.Sub(w.ReplayedAt))
	}
	return p
}
