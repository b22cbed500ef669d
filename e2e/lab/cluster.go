package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Leader returns the member that holds the leader key.
func (l *Lab) Leader(ctx context.Context) (*Member, error) {
	name, _, err := l.etcd.get(ctx, l.key("leader"))
	if err != nil {
		return nil, err
	}
	if m := l.Member(name); m != nil {
		return m, nil
	}
	return nil, errors.New("nobody has the leader key")
}

// Replicas returns the running members other than the leader.
func (l *Lab) Replicas(ctx context.Context) ([]*Member, error) {
	leader, err := l.Leader(ctx)
	if err != nil {
		return nil, err
	}
	var replicas []*Member
	for _, m := range l.members {
		if m != leader && m.Running() {
			replicas = append(replicas, m)
		}
	}
	return replicas, nil
}

// healthy returns nil when all is well, or the first thing that is not.
func (l *Lab) healthy(ctx context.Context) error {
	for _, m := range l.members {
		if m.spec.name != "" && !m.Running() {
			return fmt.Errorf("%s does not run: %s", m.Name, l.lastOutput(m.Name))
		}
	}
	leader, err := l.Leader(ctx)
	if err != nil {
		return err
	}
	// For a dozen questions and log-ins, on two cores that three clusters may share.
	short, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, body, err := leader.REST(short, http.MethodGet, "/cluster", nil)
	if err != nil {
		return err
	}
	var cluster struct {
		Members []struct {
			Name string `json:"name"`
		} `json:"members"`
	}
	if err := json.Unmarshal([]byte(body), &cluster); err != nil {
		return fmt.Errorf("GET /cluster: %w", err)
	}
	if n := len(cluster.Members); n < len(l.members) {
		return fmt.Errorf("%d of %d members are in the cluster", n, len(l.members))
	}
	// What the list says of the others is as old as their last loop, up to loop_wait: ask each itself.
	primary, err := leader.Status(short)
	if err != nil {
		return err
	}
	if primary.State != "running" {
		return fmt.Errorf("leader %s is %s", leader.Name, primary.State)
	}
	for _, m := range l.members {
		if m == leader {
			continue
		}
		s, err := m.Status(short)
		switch {
		case err != nil:
			return err
		case s.State != "running" || s.ReplicationState != "streaming":
			return fmt.Errorf("%s is %s, its replication %q", m.Name, s.State, s.ReplicationState)
		case s.Timeline != primary.Timeline:
			return fmt.Errorf("%s is on timeline %d, the leader on %d", m.Name, s.Timeline, primary.Timeline)
		}
	}
	if !leader.Writable(short) {
		return fmt.Errorf("leader %s is not writable", leader.Name)
	}
	rows, err := leader.SQL(short, "SELECT count(*) AS n FROM pg_stat_replication WHERE state = 'streaming'")
	if err != nil {
		return err
	}
	if want := fmt.Sprint(len(l.members) - 1); rows[0]["n"] != want {
		return fmt.Errorf("%s replicas stream from %s, not %s", rows[0]["n"], leader.Name, want)
	}
	rows, _, err = simpleQuery(short, l.route.DSN(), "SELECT inet_server_addr() AS a, pg_is_in_recovery() AS r")
	if err != nil {
		return fmt.Errorf("the route: %w", err)
	}
	if rows[0]["a"] != leader.Address || rows[0]["r"] != "f" {
		return fmt.Errorf("the route leads to %s (in recovery: %s), the leader is %s", rows[0]["a"], rows[0]["r"], leader.Address)
	}
	for _, p := range l.poolers {
		if _, _, err := p.Admin(short, "SHOW VERSION"); err != nil {
			return err
		}
	}
	return nil
}

// WaitHealthy waits until there is a leader that takes writes, every other member streams from it on the
// same timeline, the route leads to it, and every pooler's console answers (it may be paused).
//
// A member that has come back says so at its next loop, up to loop_wait later: while it waits, WaitHealthy
// makes them begin one every two seconds.
func (l *Lab) WaitHealthy(ctx context.Context) error {
	woken := time.Now()
	return Until(ctx, 50*time.Millisecond, "a healthy cluster", func(ctx context.Context) error {
		err := l.healthy(ctx)
		if err != nil && l.opts.LoopWait > time.Second && time.Since(woken) > 2*time.Second {
			woken = time.Now()
			short, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			return errors.Join(err, l.wake(short))
		}
		return err
	})
}

// waitRunning waits until the leader takes writes and every other member says of itself that it runs.
func (l *Lab) waitRunning(ctx context.Context) error {
	return Until(ctx, 20*time.Millisecond, "every member to run", func(ctx context.Context) error {
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		leader, err := l.Leader(short)
		if err != nil {
			return err
		}
		for _, m := range l.members {
			if s, err := m.Status(short); err != nil || s.State != "running" {
				return fmt.Errorf("%s is %q: %v", m.Name, s.State, err)
			}
		}
		if !leader.Writable(short) {
			return fmt.Errorf("leader %s is not writable", leader.Name)
		}
		for _, p := range l.poolers {
			if _, _, err := p.Admin(short, "SHOW VERSION"); err != nil {
				return err
			}
		}
		return nil
	})
}

// WaitLeader waits until a member other than not (which may be nil) has the leader key and takes writes.
func (l *Lab) WaitLeader(ctx context.Context, not *Member) (*Member, error) {
	var leader *Member
	err := Until(ctx, 20*time.Millisecond, "a leader that takes writes", func(ctx context.Context) error {
		m, err := l.Leader(ctx)
		if err != nil {
			return err
		}
		if m == not {
			return fmt.Errorf("%s still has the leader key", m.Name)
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if !m.Writable(short) {
			return fmt.Errorf("%s is not writable yet", m.Name)
		}
		leader = m
		return nil
	})
	return leader, err
}

// Handover says how a switchover went.
type Handover struct {
	From, To *Member
	Began    time.Time
	Writable time.Time // the new primary was seen writable
	Status   int       // what Patroni answered; 503 may mean that it did not wait for the end
	Answer   string
}

// Took is the time from the request until the new primary was seen writable.
func (h Handover) Took() time.Duration { return h.Writable.Sub(h.Began) }

// Switchover moves the leader to candidate, or with "" to whom Patroni chooses, and waits until the new
// leader takes writes. It does not wait for the old one to come back: see [Lab.WaitHealthy]. Patroni's
// "status unknown" is followed up; a refusal is an error.
func (l *Lab) Switchover(ctx context.Context, candidate string) (Handover, error) {
	var h Handover
	from, err := l.Leader(ctx)
	if err != nil {
		return h, err
	}
	h.From, h.Began = from, time.Now()
	request := map[string]string{"leader": from.Name}
	if candidate != "" {
		request["candidate"] = candidate
	}
	type answer struct {
		status int
		body   string
		err    error
	}
	// Patroni answers late (it polls), or not at all when the old leader's REST API is stopped: the answer
	// decides only about refusals.
	answered := make(chan answer, 1)
	restCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		status, body, err := from.REST(restCtx, http.MethodPost, "/switchover", request)
		answered <- answer{status, body, err}
	}()
	waitCtx, stopWaiting := context.WithCancelCause(ctx)
	defer stopWaiting(nil)
	waited := make(chan error, 1)
	go func() {
		to, err := l.WaitLeader(waitCtx, from)
		h.To, h.Writable = to, time.Now()
		waited <- err
	}()
	select {
	case a := <-answered:
		h.Status, h.Answer = a.status, a.body
		if a.err == nil && (a.status == http.StatusBadRequest || a.status == http.StatusPreconditionFailed) {
			stopWaiting(nil)
			<-waited
			return h, fmt.Errorf("switchover from %s refused: %d %s", from.Name, a.status, a.body)
		}
		err = <-waited
	case err = <-waited:
		// Let Patroni's answer come too, if it comes soon: the next call is refused before.
		if err == nil {
			soon, stop := context.WithTimeout(ctx, 5*time.Second)
			defer stop()
			select {
			case a := <-answered:
				h.Status, h.Answer = a.status, a.body
			case <-soon.Done():
			}
		}
	}
	if err != nil {
		return h, fmt.Errorf("switchover from %s (Patroni said %d %s): %w", from.Name, h.Status, h.Answer, err)
	}
	if candidate != "" && h.To.Name != candidate {
		return h, fmt.Errorf("switchover from %s went to %s, not to %s", from.Name, h.To.Name, candidate)
	}
	return h, nil
}
