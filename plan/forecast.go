package plan

import (
	"maps"
	"slices"

	"github.com/pgbaton/pgbaton/patroni"
)

// Plan is what would be done if the cluster stayed as it is.
type Plan struct {
	Steps []Step `json:"steps"`
	// Waits are what would have to be waited for before the steps, or between them.
	Waits  []Wait `json:"waits,omitempty"`
	Choice Choice `json:"choice,omitzero"` // of the switchover, where there is one
	Why    string `json:"why,omitempty"`   // there is nothing to do
}

// Forecast says what is left to do after what was done, if all goes as it should and the cluster stays as it is otherwise. The candidate is
// the one that would be chosen now.
func Forecast(v View, done []Done, o Options) (Plan, error) {
	p := Plan{Steps: []Step{}}
	if r, ok := o.(RestartOptions); ok && r.Targets == nil {
		selected, err := r.Select(v)
		if err != nil {
			return p, err
		}
		o = selected
	}
	v.Members = slices.Clone(v.Members)
	done = slices.Clone(done)
	// A member is restarted twice at most, and there is at most one wait for each before a step.
	for range 4*len(v.Members)*len(v.Members) + 4 {
		d, err := Next(v, done, o)
		if err != nil {
			return p, err
		}
		switch {
		case d.Step != nil:
			if d.Step.Kind == KindSwitchover {
				p.Choice = d.Choice
			}
			p.Steps = append(p.Steps, *d.Step)
			done = append(done, Done{Step: *d.Step, Outcome: OutcomeDone})
			v.take(*d.Step)
		case d.Wait != nil:
			if !slices.Contains(p.Waits, *d.Wait) {
				p.Waits = append(p.Waits, *d.Wait)
			}
			v.catchUp(d.Wait.Member)
		default:
			if len(p.Steps) == 0 {
				p.Why = d.Why
			}
			return p, nil
		}
	}
	return p, nil
}

// take is what a step does to a cluster.
func (v *View) take(s Step) {
	leader, _ := v.Leader()
	for i := range v.Members {
		m := &v.Members[i]
		switch {
		case s.Kind == KindSwitchover && m.Name == s.Candidate:
			m.Role, m.State = "leader", "running"
			m.Receive, m.Replay, m.ReplayAge = Lag{}, Lag{}, 0
		case s.Kind == KindSwitchover && m.Name == s.Member:
			m.Role = "replica"
			if v.Sync != SyncOff {
				m.Role = map[SyncMode]string{SyncOn: "sync_standby", SyncQuorum: "quorum_standby"}[v.Sync]
			}
			m.Receive, m.Replay = Lag{Known: true}, Lag{Known: true}
			m.restart(Member{Role: "leader", Pending: m.Pending}) // it keeps what is larger in its own controldata
		case m.Name == s.Member:
			m.restart(leader)
		}
		if s.Kind == KindSwitchover && m.Timeline > 0 {
			m.Timeline++
		}
	}
}

// restart is what a restart does to a member. A standby keeps a value that is larger on its primary than configured, and goes on waiting
// for a restart (postgresql/config.py, effective_configuration).
func (m *Member) restart(leader Member) {
	m.ReplayPaused = false
	if !m.Leader() {
		m.State = "streaming"
	}
	kept := map[string]patroni.Change{}
	if !m.Leader() {
		for _, p := range shrinking(m.Pending) {
			if shrinks(p, leader.Pending[p]) {
				kept[p] = m.Pending[p]
			}
		}
	}
	unknown := m.PendingRestart && len(m.Pending) == 0 && !m.Leader() && leader.PendingRestart
	m.Pending, m.PendingRestart = maps.Clone(kept), len(kept) > 0 || unknown
}

// catchUp is what a member looks like that was waited for.
func (v *View) catchUp(name string) {
	for i := range v.Members {
		m := &v.Members[i]
		if m.Name != name {
			continue
		}
		m.Reachable, m.ReplayPaused, m.CatchUp, m.ReplayAge = true, false, nil, 0
		m.State = "streaming"
		if m.Leader() {
			m.State = "running"
			continue
		}
		m.Receive, m.Replay = Lag{Known: true}, Lag{Known: true}
		if leader, ok := v.Leader(); ok {
			m.Timeline = leader.Timeline
		}
		if v.Sync != SyncOff && !m.Synchronous() && !truthy(m.Tags["nosync"]) &&
			!slices.ContainsFunc(v.Members, Member.Synchronous) {
			m.Role = map[SyncMode]string{SyncOn: "sync_standby", SyncQuorum: "quorum_standby"}[v.Sync]
		}
	}
}
