package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/e2e/lab"
)

// A run of planned maintenance is judged by what it did not write itself: PostgreSQL's logs say who was down when and who was promoted, the
// servers say which values they run with, the lab knows the leader and the poolers' state.

// maintenance is a run of pgbaton switchover or restart on one member that goes on beside the test.
type maintenance struct {
	*lab.Running
	c      *cluster
	member *lab.Member
	began  time.Time
}

// maintained is how it ended.
type maintained struct {
	lab.ExecResult
	began, ended time.Time
	events       []api.ClusterEvent
	report       api.ClusterReport // zero where the run was killed
}

// maintain starts a run on a member, which nobody is asked about and which reports in JSON.
func (c *cluster) maintain(m *lab.Member, args ...string) *maintenance {
	c.t.Helper()
	began := time.Now()
	running, err := m.StartExec(c.ctx, nil, append(append([]string{"/callbacks/pgbaton"}, args...), "--yes", "--output", "json")...)
	c.must(err)
	return &maintenance{Running: running, c: c, member: m, began: began}
}

// maintainNow is maintain until its end.
func (c *cluster) maintainNow(m *lab.Member, args ...string) maintained {
	c.t.Helper()
	return c.maintain(m, args...).end()
}

// readRun reads the JSON lines of a run: its events, and at the end the report.
func readRun(out string) (events []api.ClusterEvent, report api.ClusterReport, err error) {
	for line := range strings.Lines(out) {
		if !strings.HasSuffix(line, "\n") {
			break // being written
		}
		var kind struct {
			Event    string
			Decision *string
		}
		if err := json.Unmarshal([]byte(line), &kind); err != nil {
			return events, report, fmt.Errorf("%q: %w", line, err)
		}
		decoder := json.NewDecoder(bytes.NewReader([]byte(line)))
		decoder.DisallowUnknownFields()
		if kind.Event == "" && kind.Decision != nil {
			if err := decoder.Decode(&report); err != nil {
				return events, report, err
			}
			continue
		}
		var event api.ClusterEvent
		if err := decoder.Decode(&event); err != nil {
			return events, report, err
		}
		events = append(events, event)
	}
	return events, report, nil
}

// until waits for an event and returns it. A run that ends before fails the test.
func (r *maintenance) until(what string, is func(api.ClusterEvent) bool) api.ClusterEvent {
	r.c.t.Helper()
	var found api.ClusterEvent
	r.c.eventually(2*time.Minute, what, func() error {
		ended := r.Ended() // before the look: all is written then
		events, _, err := readRun(r.Stdout())
		r.c.must(err)
		if i := slices.IndexFunc(events, is); i >= 0 {
			found = events[i]
			return nil
		}
		if ended {
			r.c.t.Fatalf("the run ended without: %s\n%s%s", what, r.Stdout(), r.Stderr())
		}
		return errNotYet
	})
	return found
}

// step waits until a step of a kind is in a state. number is that of the steps of that kind, from 1.
func (r *maintenance) step(kind string, number int, state string) api.StepReport {
	r.c.t.Helper()
	var found api.StepReport
	r.until(fmt.Sprintf("step %s, number %d of its kind, %s", kind, number, state), func(e api.ClusterEvent) bool {
		n := 0
		for _, s := range e.Plan {
			if s.Kind == kind {
				if n++; n == number && s.State == state {
					found = s
					return true
				}
			}
		}
		return false
	})
	return found
}

// waiting waits until a step says that it waits for something.
func (r *maintenance) waiting(what string) {
	r.c.t.Helper()
	r.until("waiting for "+what, func(e api.ClusterEvent) bool {
		return e.Live != nil && strings.Contains(e.Live.Waits, what) || strings.Contains(e.Text, what)
	})
}

// end waits for the run's end: its exit code is the report's, and nothing in what it has written is a password.
func (r *maintenance) end() maintained {
	r.c.t.Helper()
	result, err := r.Wait()
	r.c.must(err)
	m := maintained{ExecResult: result, began: r.began, ended: time.Now()}
	m.events, m.report, err = readRun(result.Stdout)
	if err != nil {
		r.c.t.Fatalf("%s: %v\n%s%s", r.member, err, result.Stdout, result.Stderr)
	}
	r.c.t.Logf("%s, exit code %d after %s: %s", r.member, result.ExitCode, result.Took.Round(10*time.Millisecond), m.report.Decision)
	for _, s := range m.report.Steps {
		cost := ""
		if s.Cost != nil {
			cost = fmt.Sprintf(", stall %.2f s, %d waited, paused %.2f s, %d errors", s.Cost.StallSeconds, s.Cost.Waiting,
				s.Cost.PausedSeconds, s.Cost.Errors)
		}
		r.c.t.Logf("  %d %s %s %s: %s after %.1f s%s: %s", s.Number, s.Kind, s.Member, s.Candidate, s.State, s.TookSeconds, cost, s.Text)
	}
	if result.ExitCode >= 0 && (m.report.Decision == "" || m.report.Code != result.ExitCode) {
		r.c.t.Errorf("%s: exit code %d, the report says %d\n%s%s", r.member, result.ExitCode, m.report.Code, result.Stdout, result.Stderr)
	}
	for _, secret := range []string{r.c.SuperuserPassword, r.c.AdminPassword} {
		if strings.Contains(result.Stdout+result.Stderr, secret) {
			r.c.t.Errorf("%s: a password is shown", r.member)
		}
	}
	return m
}

// kill ends the run's process with SIGKILL.
func (r *maintenance) kill() maintained {
	r.c.t.Helper()
	r.c.must(r.Signal(syscall.SIGKILL))
	return r.end()
}

// ok fails the test where a run did not do all that it was asked for.
func (m maintained) ok(c *cluster) {
	c.t.Helper()
	c.truth(m)
	if m.ExitCode != 0 {
		c.t.Errorf("exit code %d: %s\n%s", m.ExitCode, m.report.Decision, m.Stderr)
	}
}

// refused checks that a run was refused for a reason, and has touched nothing.
func (m maintained) refused(c *cluster, id string) {
	c.t.Helper()
	if m.ExitCode != 4 || m.report.Refusal != id {
		c.t.Errorf("exit code %d and %q, want 4 and %q: %s\n%s", m.ExitCode, m.report.Refusal, id, m.report.Decision, m.Stderr)
	}
	if course := c.course(m); len(course.Restarts)+len(course.Promotions) > 0 {
		c.t.Errorf("refused, and yet: %s", course.Order())
	}
}

// truth compares a run's last word with the cluster. Without clients a pooler may list no database, and the run cannot tell then whether it
// leads to a server that takes writes: see restartRound for what is said under load.
func (c *cluster) truth(m maintained) {
	c.t.Helper()
	leader, err := c.WaitLeader(c.ctx, nil)
	c.must(err)
	after := m.report.After
	switch {
	case m.ExitCode == 0 && (after == nil || !after.OK || len(after.Problems) > 0 || after.Writable == "no" || after.Primary != leader.Name):
		c.t.Errorf("exit code 0, %s is the primary, and the last look: %+v", leader, after)
	case m.ExitCode != 0 && after != nil && after.OK && !slices.ContainsFunc(m.report.Steps, func(s api.StepReport) bool {
		return s.State != api.StepDone && s.State != api.StepSkipped
	}) && len(m.report.Steps) > 0:
		c.t.Errorf("exit code %d, and nothing is wrong: %+v", m.ExitCode, m.report)
	}
	if after != nil && after.LockTaken {
		c.t.Errorf("the run's entry still stands in the cluster's configuration")
	}
}

// course is who was down when during a run, and who was promoted.
func (c *cluster) course(m maintained) lab.Course {
	c.t.Helper()
	return c.courseSince(m.began, m.ended)
}

func (c *cluster) courseSince(from, to time.Time) lab.Course {
	c.t.Helper()
	events, err := c.TimeLine(from, to)
	c.must(err)
	return lab.CourseOf(events)
}

// oneAtATime checks that no two servers were down at one moment, and that each of those named was down so many times.
func (c *cluster) oneAtATime(course lab.Course, times map[string]int) {
	c.t.Helper()
	if together := course.Together(); len(together) > 0 {
		c.t.Errorf("down at the same time: %v", together)
	}
	got := map[string]int{}
	for _, r := range course.Restarts {
		got[r.Member]++
	}
	for _, m := range c.Members() {
		if got[m.Name] != times[m.Name] {
			c.t.Errorf("%s was restarted %d times, want %d: %s", m, got[m.Name], times[m.Name], course.Order())
		}
	}
}

// once is every member once.
func (c *cluster) once() map[string]int {
	times := map[string]int{}
	for _, m := range c.Members() {
		times[m.Name] = 1
	}
	return times
}

// set changes parameters in Patroni's dynamic configuration and waits until every member says that a restart is pending.
func (c *cluster) set(parameters map[string]any) {
	c.t.Helper()
	c.patchParameters(parameters)
	c.eventually(time.Minute, "a restart is pending everywhere", func() error {
		for _, m := range c.Members() {
			if s, err := m.Status(c.ctx); err != nil || !s.PendingRestart {
				return fmt.Errorf("%s: %v", m, err)
			}
		}
		return nil
	})
}

// runWith checks that every server runs with these values, and that none waits for a restart.
func (c *cluster) runWith(parameters map[string]any) {
	c.t.Helper()
	for _, m := range c.Members() {
		for name, want := range parameters {
			rows, err := m.SQL(c.ctx, "SHOW "+name)
			c.must(err)
			if got := rows[0][name]; got != fmt.Sprint(want) {
				c.t.Errorf("%s: %s = %s, want %v", m, name, got, want)
			}
		}
		s, err := m.Status(c.ctx)
		c.must(err)
		if s.PendingRestart {
			c.t.Errorf("%s waits for a restart", m)
		}
	}
}
