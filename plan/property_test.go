package plan_test

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/pgbaton/pgbaton/plan"
)

func genLimit(t *rapid.T) plan.Limit {
	return rapid.SampledFrom([]plan.Limit{{}, plan.DefaultLimit(), {Bytes: 1 << 10}}).Draw(t, "limit")
}

// genOptions draws the options of a restart.
func genOptions(t *rapid.T, w *world) plan.RestartOptions {
	o := plan.RestartOptions{
		Rolling: true, Pending: rapid.Bool().Draw(t, "--pending"), KeepLeader: rapid.IntRange(0, 4).Draw(t, "--keep-leader") == 0,
		MaxReplayLag: genLimit(t),
		IfLagging:    rapid.SampledFrom([]plan.Policy{"", plan.PolicyWait, plan.PolicyInPlace, plan.PolicyRefuse}).Draw(t, "--if-lagging"),
	}
	if rapid.IntRange(0, 3).Draw(t, "--older-than") == 0 {
		o.OlderThan = 170006
	}
	for _, m := range w.view.Members {
		if rapid.IntRange(0, 5).Draw(t, "named") == 0 {
			o.Members = append(o.Members, m.Name)
		}
	}
	if rapid.IntRange(0, 5).Draw(t, "--candidate") == 0 {
		o.Candidate = rapid.SampledFrom(w.view.Members).Draw(t, "candidate").Name
	}
	return o
}

// run is one that is watched: each step is looked at before it is done.
type run struct {
	t     *rapid.T
	w     *world
	o     plan.Options
	done  []plan.Done
	waits []plan.Wait
}

// next decides, and looks at the decision. It returns nil where there is nothing to do, and where it was refused.
func (r *run) next() (*plan.Step, error) {
	v := r.w.look()
	d, err := plan.Next(v, r.done, r.o)
	if err != nil {
		var refusal *plan.Refusal
		if !errors.As(err, &refusal) || refusal.ID == "" || refusal.Found == "" || refusal.Change == "" {
			r.t.Fatalf("%v is not a whole refusal", err)
		}
		return nil, err
	}
	if d.Wait != nil {
		if d.Step != nil || d.Wait.Member == "" || d.Wait.For == "" {
			r.t.Fatalf("a decision to wait: %+v", d)
		}
		r.waits = append(r.waits, *d.Wait)
		if len(r.waits) > 1000 {
			r.t.Fatalf("%+v is waited for again and again, although it has come", *d.Wait)
		}
		r.w.catchUp(d.Wait.Member)
		return r.next()
	}
	if d.Step == nil && d.Why == "" {
		r.t.Fatal("nothing to do, and no reason")
	}
	if d.Step != nil {
		r.inspect(v, *d.Step)
	}
	return d.Step, nil
}

// inspect fails where a step must not be taken.
func (r *run) inspect(v plan.View, s plan.Step) {
	leader, _ := v.Leader()
	for _, m := range v.Members {
		if m.Busy() {
			r.t.Fatalf("%+v while %s is %s: two members at work", s, m.Name, m.State)
		}
		if m.Name != s.Member && r.restarted(m.Name) > 0 && !(m.Up() && m.Reachable) {
			r.t.Fatalf("%+v while %s, restarted before, is %s: two members at work", s, m.Name, m.State)
		}
	}
	switch s.Kind {
	case plan.KindRestart:
		if s.Member == leader.Name {
			r.t.Fatalf("%+v is the primary", s)
		}
		return
	case plan.KindSwitchover:
		if why := patroniRefuses(v, s.Candidate); why != "" {
			r.t.Fatalf("%+v, and Patroni says: %s", s, why)
		}
		if slices.ContainsFunc(r.done, func(d plan.Done) bool {
			return d.Kind == plan.KindSwitchover && d.Outcome == plan.OutcomeDone
		}) {
			r.t.Fatalf("%+v is the second switchover", s)
		}
		if m, _ := v.Member(s.Candidate); m.ReplayPaused || len(m.CatchUp) > 0 || m.NoFailover() {
			r.t.Fatalf("%+v: candidate %+v", s, m)
		}
	}
	if s.Member != leader.Name {
		r.t.Fatalf("%+v, and the primary is %s", s, leader.Name)
	}
	if o, ok := r.o.(plan.RestartOptions); ok && !r.shrinks(leader) {
		for _, m := range v.Members {
			if m.Name != leader.Name && slices.Contains(o.Targets, m.Name) && r.restarted(m.Name) == 0 &&
				(!o.Pending || m.PendingRestart) && (o.OlderThan == 0 || m.ServerVersion < o.OlderThan) {
				r.t.Fatalf("%+v before the replica %s, and no parameter gets smaller", s, m.Name)
			}
		}
	}
}

func (r *run) shrinks(leader plan.Member) bool {
	for _, p := range parameters() {
		if p != sharedBuffers && r.w.configured[p] < r.w.values[leader.Name][p] {
			return true
		}
	}
	return false
}

func (r *run) restarted(name string) int {
	n := 0
	for _, d := range r.done {
		if d.Member == name && d.Outcome == plan.OutcomeDone {
			n++
		}
	}
	return n
}

func (r *run) record(s plan.Step, outcome plan.Outcome) {
	r.done = append(r.done, plan.Done{Step: s, Outcome: outcome})
	if most := 3*len(r.w.view.Members) + 3; len(r.done) > most {
		r.t.Fatalf("more than %d steps: %+v", most, r.done)
	}
}

// TestRestartProperties: in a cluster in which nothing else happens every target ends with its new values, no standby is ever left with a
// smaller parameter than its primary, and the forecast was right.
func TestRestartProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := genWorld(t)
		o, err := genOptions(t, w).Select(w.look())
		if err != nil {
			return
		}
		forecast, refused := plan.Forecast(w.look(), nil, o)
		r := &run{t: t, w: w, o: o}
		for {
			s, err := r.next()
			if err != nil {
				if refused == nil {
					t.Fatalf("the forecast has not seen: %v", err)
				}
				return
			}
			if s == nil {
				break
			}
			w.do(*s)
			r.record(*s, plan.OutcomeDone)
			if why := w.broken(); why != "" && w.names {
				t.Fatalf("after %+v: %s", *s, why)
			}
		}
		if refused != nil {
			t.Fatalf("the forecast has refused, and the run has not: %v", refused)
		}
		for _, name := range o.Targets {
			if r.restarted(name) == 0 {
				t.Fatalf("%s was not restarted: %+v", name, r.done)
			}
			if !r.mayStayPending(name) {
				t.Fatalf("%s still waits for a restart (%v, %v): %+v", name, w.values, w.configured, r.done)
			}
		}
		r.matches(forecast)
	})
}

// mayStayPending: its values are those that are configured, or a parameter gets smaller on a standby only after its primary, which was not among those to restart.
func (r *run) mayStayPending(name string) bool {
	leader := r.w.leader().Name
	for _, p := range parameters() {
		value := r.w.values[name][p]
		if value != r.w.configured[p] && (name == leader || p == sharedBuffers || r.w.values[leader][p] != value) {
			return false
		}
	}
	return true
}

// matches compares what was done with the forecast. Where Patroni does not name the parameters, a second pass may have turned out needless;
// where it names those from before, there may have been a needless one.
func (r *run) matches(p plan.Plan) {
	if r.w.late {
		return
	}
	left := p.Steps
	for _, d := range r.done {
		i := slices.IndexFunc(left, func(s plan.Step) bool {
			return d.Kind == s.Kind && d.Member == s.Member && d.Candidate == s.Candidate
		})
		if i < 0 || i > 0 && r.w.names {
			r.t.Fatalf("forecast %+v, done %+v", p.Steps, r.done)
		}
		left = left[i+1:]
	}
	if len(left) > 0 && r.w.names {
		r.t.Fatalf("forecast %+v, done %+v", p.Steps, r.done)
	}
}

// TestRestartInAStorm: while members fail over, stop, lag and come back between the steps, and steps fail, what must never happen does not
// happen, and the run ends.
func TestRestartInAStorm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := genWorld(t)
		o, err := genOptions(t, w).Select(w.look())
		if err != nil {
			return
		}
		r := &run{t: t, w: w, o: o}
		for range 40 {
			w.storm(t)
			s, err := r.next()
			if err != nil || s == nil {
				return
			}
			if rapid.IntRange(0, 5).Draw(t, "fails") == 0 {
				r.record(*s, plan.OutcomeFailed)
				continue
			}
			w.do(*s)
			r.record(*s, plan.OutcomeDone)
		}
	})
}

// storm changes a cluster behind a run's back.
func (w *world) storm(t *rapid.T) {
	m := w.member(rapid.SampledFrom(w.view.Members).Draw(t, "who").Name)
	switch rapid.IntRange(0, 9).Draw(t, "what") {
	case 0:
		if m.Up() && !m.Leader() { // a failover
			w.promote(m.Name)
		}
	case 1:
		m.State = "restarting"
	case 2:
		m.Reachable = false
	case 3:
		if !m.Leader() {
			m.State = "stopped"
		}
	case 4:
		if !m.Leader() {
			m.Replay = plan.Lag{Bytes: 1 << 31, Known: true}
		}
	case 5:
		w.configured[sharedBuffers] = rapid.IntRange(1, 30).Draw(t, sharedBuffers)
	case 6:
		w.configured["max_connections"] = rapid.IntRange(1, 30).Draw(t, "max_connections")
	}
}

// TestSwitchoverProperties: a switchover is one step to a candidate that Patroni takes, and that does not stop the others' replay.
func TestSwitchoverProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := genWorld(t)
		o := plan.SwitchoverOptions{MaxReplayLag: genLimit(t),
			IfLagging: rapid.SampledFrom([]plan.Policy{plan.PolicyWait, plan.PolicyRefuse}).Draw(t, "--if-lagging")}
		if rapid.Bool().Draw(t, "--candidate") {
			o.Candidate = rapid.SampledFrom(w.view.Members).Draw(t, "candidate").Name
		}
		r := &run{t: t, w: w, o: o}
		s, err := r.next()
		if err != nil {
			return
		}
		if s == nil {
			if o.Candidate != w.leader().Name {
				t.Fatal("nothing to do, and no refusal")
			}
			return
		}
		if o.Candidate != "" && s.Candidate != o.Candidate {
			t.Fatalf("%+v, and %s was asked for", s, o.Candidate)
		}
		if o.IfLagging == plan.PolicyRefuse && slices.ContainsFunc(r.waits, func(x plan.Wait) bool { return x.Member == s.Candidate }) &&
			len(r.waits) > len(w.view.Members) {
			t.Fatalf("waited for %+v", r.waits)
		}
		w.do(*s)
		r.record(*s, plan.OutcomeDone)
		if why := w.broken(); why != "" && w.names {
			t.Fatalf("after %+v: %s", *s, why)
		}
		if again, err := r.next(); err == nil && again != nil {
			t.Fatalf("%+v comes after the switchover", again)
		}
	})
}
