package patroni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Lag is how far a member is behind the leader's last known WAL position.
type Lag struct {
	Bytes int64
	Known bool // false on the leader, and where Patroni says "unknown"
}

// UnmarshalJSON reads a number of bytes or "unknown".
func (l *Lag) UnmarshalJSON(b []byte) error {
	*l = Lag{}
	if n, err := strconv.ParseInt(string(b), 10, 64); err == nil {
		*l = Lag{n, true}
	}
	return nil
}

// Member is one row of the cluster's view in the DCS: what the member wrote there in its last loop.
type Member struct {
	Name                 string
	Role                 string // "leader", "standby_leader", "sync_standby", "quorum_standby", "replica"
	State                string // "running", "streaming" (replicas of newer versions), "in archive recovery", "stopped", …
	Host                 string // of PostgreSQL, as clients reach it; empty when not told
	Port                 int
	APIURL               string
	Timeline             int // 0 when not told
	Lag                  Lag
	PendingRestart       bool
	PendingRestartReason map[string]Change // since 3.3; nil before
	Tags                 map[string]any
}

// Leader reports whether the member holds the lock of a cluster or of a standby cluster.
func (m Member) Leader() bool { return m.Role == "leader" || m.Role == "standby_leader" }

// Switchover is one that waits for its time.
type Switchover struct {
	At       time.Time
	From, To string // empty: not said
}

// Cluster is the view that all members share through the DCS.
type Cluster struct {
	Scope               string // empty where an old Patroni does not tell it
	Members             []Member
	Paused              bool // maintenance mode
	ScheduledSwitchover *Switchover
}

// Leader returns the member that holds the lock.
func (c Cluster) Leader() (Member, bool) {
	for _, m := range c.Members {
		if m.Leader() {
			return m, true
		}
	}
	return Member{}, false
}

// Cluster asks GET /cluster. Patroni reads the DCS for it, so it takes as long as that does: without a
// DCS, up to retry_timeout, and then 500 or a closed connection.
func (c *Client) Cluster(ctx context.Context) (Cluster, error) {
	const path = "/cluster"
	status, body, err := c.do(ctx, http.MethodGet, path, http.StatusOK)
	if err != nil {
		return Cluster{}, err
	}
	var a struct {
		Scope      string `json:"scope"`
		Pause      bool   `json:"pause"`
		Members    rows   `json:"members"`
		Switchover *struct {
			At   string `json:"at"`
			From string `json:"from"`
			To   string `json:"to"`
		} `json:"scheduled_switchover"`
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return Cluster{}, c.garbage(http.MethodGet, path, status, body, err)
	}
	if a.Members == nil {
		return Cluster{}, c.garbage(http.MethodGet, path, status, body, errors.New("no members"))
	}
	r := Cluster{Scope: c.text(a.Scope), Paused: a.Pause}
	for _, row := range a.Members {
		m, err := c.member(row)
		if err != nil {
			return Cluster{}, c.garbage(http.MethodGet, path, status, body, err)
		}
		r.Members = append(r.Members, m)
	}
	if s := a.Switchover; s != nil {
		// Python's isoformat: with an offset, with or without microseconds.
		at, err := time.Parse(time.RFC3339, s.At)
		if err != nil {
			return Cluster{}, c.garbage(http.MethodGet, path, status, nil, fmt.Errorf("scheduled_switchover: %w", err))
		}
		r.ScheduledSwitchover = &Switchover{At: at, From: s.From, To: s.To}
	}
	return r, nil
}

const maxMembers = 1000 // of a cluster; real ones have at most tens

// rows are the texts of GET /cluster's members, at most maxMembers: decoded, a "{}" takes 100 times as much memory as its text.
type rows []json.RawMessage

func (r *rows) UnmarshalJSON(b []byte) error {
	*r = nil
	d := json.NewDecoder(bytes.NewReader(b))
	first, err := d.Token()
	if err != nil || first == nil { // null
		return err
	}
	if first != json.Delim('[') {
		return errors.New("members is not a list")
	}
	*r = rows{}
	for d.More() {
		if len(*r) == maxMembers {
			return fmt.Errorf("more than %d members", maxMembers)
		}
		var row json.RawMessage
		if err := d.Decode(&row); err != nil {
			return err
		}
		*r = append(*r, row)
	}
	return nil
}

// member reads one of GET /cluster's members.
func (c *Client) member(row []byte) (Member, error) {
	var m struct {
		Name           string `json:"name"`
		Role           string `json:"role"`
		State          string `json:"state"`
		Host           string `json:"host"`
		Port           int    `json:"port"`
		APIURL         string `json:"api_url"`
		Timeline       int    `json:"timeline"`
		Lag            Lag    `json:"lag"`
		PendingRestart bool   `json:"pending_restart"`
		Reason         reason `json:"pending_restart_reason"`
		Tags           tags   `json:"tags"`
	}
	if err := json.Unmarshal(row, &m); err != nil {
		return Member{}, err
	}
	return Member{Name: c.text(m.Name), Role: c.text(m.Role), State: c.text(m.State), Host: c.text(m.Host), Port: m.Port,
		APIURL: c.text(m.APIURL), Timeline: m.Timeline, Lag: m.Lag, PendingRestart: m.PendingRestart,
		PendingRestartReason: c.reasons(m.Reason), Tags: m.Tags}, nil
}
