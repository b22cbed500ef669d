package plan_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"pgregory.net/rapid"

	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/plan"
	"github.com/pgbaton/pgbaton/postgres"
)

// world is a cluster as PostgreSQL and Patroni have it: what the servers run with, and what they are configured with. It is what the
// decisions are tried on.
type world struct {
	view       plan.View // all but the pending restarts, which follow from the values
	configured map[string]int
	values     map[string]map[string]int // of each member's server: parameter → value
	names      bool                      // Patroni names the parameters that wait (3.3)
	late       bool                      // and goes on naming those from before the last restart
	before     map[string]plan.Member    // the members as they were shown before their last restart
}

const sharedBuffers = "shared_buffers"

func parameters() []string { return append(postgres.StandbyParameters(), sharedBuffers) }

// genWorld draws a cluster whose standbys work: none has a smaller value than its primary.
func genWorld(t *rapid.T) *world {
	n := rapid.IntRange(1, 5).Draw(t, "members")
	w := &world{configured: map[string]int{}, values: map[string]map[string]int{},
		late: rapid.Bool().Draw(t, "late"), before: map[string]plan.Member{}, names: rapid.IntRange(0, 5).Draw(t, "names") > 0}
	w.view = plan.View{MaximumLag: 1 << 20, CheckTimeline: rapid.Bool().Draw(t, "check_timeline"),
		Sync: rapid.SampledFrom([]plan.SyncMode{plan.SyncOff, plan.SyncOff, plan.SyncOn, plan.SyncQuorum}).Draw(t, "sync")}
	old := map[string]int{}
	for _, p := range parameters() {
		old[p] = 10
		w.configured[p] = rapid.SampledFrom([]int{10, 10, 10, 10, 10, 10, 10, 5, 20, 20}).Draw(t, p)
	}
	primaryToo := rapid.IntRange(0, 3).Draw(t, "the primary was restarted, too") == 0
	for i := range n {
		m := genMember(t, fmt.Sprint("m", i+1), w.view.Sync)
		values := maps.Clone(old)
		if i == 0 {
			m.Role, m.State, m.Reachable, m.Timeline, m.Receive, m.Replay = "leader", "running", true, 7, plan.Lag{}, plan.Lag{}
			m.ReplayPaused, m.CatchUp = false, nil
			if primaryToo {
				values = maps.Clone(w.configured)
			}
		} else if rapid.Bool().Draw(t, "restarted") || primaryToo { // by somebody, before the primary
			values = w.started(values, old)
		}
		w.view.Members = append(w.view.Members, m)
		w.values[m.Name] = values
	}
	return w
}

func genMember(t *rapid.T, name string, sync plan.SyncMode) plan.Member {
	m := plan.Member{
		Name: name, Role: "replica", PatroniVersion: rapid.SampledFrom([]string{"3.0.3", "4.0.7", "4.1.5"}).Draw(t, "Patroni"), Tags: map[string]any{},
		State: rapid.SampledFrom([]string{"streaming", "streaming", "streaming", "streaming", "streaming", "streaming", "streaming",
			"running", "running", "in archive recovery", "starting", "stopped"}).Draw(t, "state"),
		Reachable:      rapid.IntRange(0, 19).Draw(t, "reachable") > 0,
		Timeline:       rapid.SampledFrom([]int{7, 7, 7, 7, 6, 0}).Draw(t, "timeline"),
		ServerVersion:  rapid.SampledFrom([]int{170004, 170005, 170006}).Draw(t, "version"),
		Receive:        plan.Lag{Bytes: rapid.SampledFrom([]int64{0, 0, 500, 1 << 20, 1<<20 + 1}).Draw(t, "receive"), Known: true},
		WatchdogFailed: rapid.IntRange(0, 9).Draw(t, "watchdog") == 0,
		ReplayPaused:   rapid.IntRange(0, 7).Draw(t, "paused") == 0,
	}
	m.Replay = plan.Lag{Bytes: m.Receive.Bytes + rapid.SampledFrom([]int64{0, 0, 100, 5 << 20, 1 << 30}).Draw(t, "replay"), Known: true}
	if rapid.IntRange(0, 7).Draw(t, "lag") == 0 {
		m.Receive, m.Replay = plan.Lag{}, plan.Lag{}
	}
	if rapid.IntRange(0, 9).Draw(t, "slots") == 0 {
		m.CatchUp = []string{"cdc"}
	}
	for _, tag := range []string{"nofailover", "nosync", "nostream"} {
		if rapid.IntRange(0, 7).Draw(t, tag) == 0 {
			m.Tags[tag] = true
		}
	}
	if rapid.IntRange(0, 3).Draw(t, "prioritised") == 0 {
		m.Tags["failover_priority"] = float64(rapid.IntRange(-1, 3).Draw(t, "priority"))
	}
	if sync != plan.SyncOff && rapid.Bool().Draw(t, "synchronous") {
		m.Role = syncRole(sync)
	}
	return m
}

func syncRole(mode plan.SyncMode) string {
	return map[plan.SyncMode]string{plan.SyncOn: "sync_standby", plan.SyncQuorum: "quorum_standby"}[mode]
}

// started is what a server runs with when it starts as a standby with the parameters of controldata: Patroni keeps what is larger there
// than configured (postgresql/config.py, effective_configuration).
func (w *world) started(values, controldata map[string]int) map[string]int {
	values = maps.Clone(values)
	for _, p := range parameters() {
		values[p] = w.configured[p]
		if p != sharedBuffers {
			values[p] = max(values[p], controldata[p])
		}
	}
	return values
}

// look is the view as it is now.
func (w *world) look() plan.View {
	v := w.view
	v.Members = slices.Clone(v.Members)
	for i := range v.Members {
		m := &v.Members[i]
		waits := map[string]patroni.Change{}
		for _, p := range parameters() {
			if value := w.values[m.Name][p]; value != w.configured[p] {
				waits[p] = patroni.Change{Old: strconv.Itoa(value), New: strconv.Itoa(w.configured[p])}
			}
		}
		m.PendingRestart, m.Pending = len(waits) > 0, nil
		if w.names {
			m.Pending = waits
		}
		if b, ok := w.before[m.Name]; ok && w.names && w.late {
			m.PendingRestart, m.Pending = b.PendingRestart, b.Pending
		}
	}
	return v
}

func (w *world) member(name string) *plan.Member {
	for i := range w.view.Members {
		if w.view.Members[i].Name == name {
			return &w.view.Members[i]
		}
	}
	return nil
}

func (w *world) leader() *plan.Member {
	leader, _ := w.view.Leader()
	return w.member(leader.Name)
}

// do does a step, and all that waits for it is over.
func (w *world) do(s plan.Step) {
	m, leader := w.member(s.Member), w.leader()
	w.before[m.Name], _ = w.look().Member(m.Name)
	m.ServerVersion = 170006
	switch s.Kind {
	case plan.KindRestart:
		w.values[m.Name] = w.started(w.values[m.Name], w.values[leader.Name])
		m.ReplayPaused, m.State = false, "streaming"
	case plan.KindInPlace:
		w.values[m.Name] = maps.Clone(w.configured)
	case plan.KindSwitchover:
		w.promote(s.Candidate)
	}
}

// promote makes a member the primary, and the one before a standby.
func (w *world) promote(name string) {
	old, now := w.leader(), w.member(name)
	now.Timeline = old.Timeline
	now.Role, now.State, now.ReplayPaused, now.CatchUp = "leader", "running", false, nil
	old.Role, old.State = "replica", "streaming"
	old.Receive, old.Replay = plan.Lag{Known: true}, plan.Lag{Known: true}
	if w.view.Sync != plan.SyncOff {
		old.Role = syncRole(w.view.Sync)
	}
	w.values[old.Name] = w.started(w.values[old.Name], w.values[old.Name])
	for i := range w.view.Members {
		if m := &w.view.Members[i]; m.Timeline != 0 {
			m.Timeline++
		}
	}
}

// catchUp makes true what was waited for.
func (w *world) catchUp(name string) {
	m := w.member(name)
	m.Reachable, m.ReplayPaused, m.CatchUp, m.ReplayAge = true, false, nil, 0
	if m.Leader() {
		m.State = "running"
		return
	}
	m.State, m.Timeline = "streaming", w.leader().Timeline
	m.Receive, m.Replay = plan.Lag{Known: true}, plan.Lag{Known: true}
	synchronous := slices.ContainsFunc(w.view.Members, plan.Member.Synchronous)
	if w.view.Sync != plan.SyncOff && m.Tags["nosync"] == nil && !synchronous {
		m.Role = syncRole(w.view.Sync)
	}
}

// broken is a standby that works and has a smaller value than its primary: its replay has stopped, or it does not start again.
func (w *world) broken() string {
	leader := w.leader().Name
	for _, m := range w.view.Members {
		for _, p := range postgres.StandbyParameters() {
			if m.Up() && w.values[m.Name][p] < w.values[leader][p] {
				return fmt.Sprintf("%s has %s = %d, and the primary %s %d", m.Name, p, w.values[m.Name][p], leader, w.values[leader][p])
			}
		}
	}
	return ""
}

// patroniRefuses is Patroni's answer to a switchover: api.py, is_failover_possible, and, before the primary steps down, ha.py,
// process_manual_failover_from_leader with is_failover_possible, get_failover_candidates, failover_limitation and is_lagging (4.0.7).
func patroniRefuses(v plan.View, candidate string) string {
	leader, _ := v.Leader()
	m, ok := v.Member(candidate)
	synchronous := slices.ContainsFunc(
		v.Members,
		func(m plan.Member) bool { return m.Role == "sync_standby" || m.Role == "quorum_standby" },
	)
	matches := m.Role == "sync_standby" || m.Role == "quorum_standby"
	noFailover := m.Tags["nofailover"] == true
	if _, said := m.Tags["nofailover"]; !said {
		priority, ok := m.Tags["failover_priority"].(float64)
		noFailover = ok && priority <= 0
	}
	switch {
	case v.Maintenance && candidate == "":
		return "Switchover is possible only to a specific candidate in a paused state"
	case leader.Name == candidate:
		return "Switchover target and source are the same"
	case !ok:
		return "candidate does not exists"
	case v.Sync == plan.SyncOn && !matches:
		return "candidate name does not match with sync_standby"
	case !m.Reachable:
		return "not reachable"
	case noFailover:
		return "not allowed to promote"
	case m.WatchdogFailed:
		return "not watchdog capable"
	case v.Sync != plan.SyncOff && synchronous && !matches:
		return "not among the candidates of a switchover in synchronous mode"
	case !m.Receive.Known || m.Receive.Bytes > v.MaximumLag:
		return "exceeds maximum replication lag"
	case v.CheckTimeline && (m.Timeline == 0 || m.Timeline < leader.Timeline):
		return "timeline is behind the cluster timeline"
	}
	return ""
}
