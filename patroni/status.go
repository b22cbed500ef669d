package patroni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/peer"
)

// Health is what a member says of itself: the body of GET /leader, which is the same as that of
// GET /patroni whatever the status code (source: api.py, 4.0.7 and 4.1.5).
type Health struct {
	HasLock    bool // status 200: this member holds the leader lock, as far as Patroni's last look at the DCS
	StatusCode int  // 200 or 503
	// State of the server: "running", "stopping", "stopped", "starting", "restarting", "start failed",
	// "crashed", … ; "unknown" when Patroni thinks that it runs and it did not answer.
	State string
	// Role: "primary" ("master" before 4.0), "replica", "standby_leader", "demoted", "promoted",
	// "uninitialized". While the server answers it is its own pg_is_in_recovery(), else Patroni's memory.
	Role          string
	ServerVersion int // 170005; 0 while the server does not answer
	Timeline      int // 0 when not told
	// DCSLastSeen is when Patroni last reached the DCS, in whole seconds of this host's clock; zero
	// when not told, or never.
	DCSLastSeen     time.Time
	Maintenance     bool // the cluster is in maintenance mode ("pause": true)
	ClusterUnlocked bool // nobody holds the leader lock, or the last look into the DCS failed
	PendingRestart  bool
	// PendingRestartReason are the parameters that wait for it, since 3.3; nil before. Patroni knows those too that it
	// gives to the server on its command line.
	PendingRestartReason map[string]Change
	Name                 string // of the member; empty where an old Patroni does not tell it
	Scope                string
	Version              string // of Patroni, "4.0.7"
	SystemID             string // of the database cluster; empty when not known yet
	// PostmasterStart is when the server was started; zero while it does not answer.
	PostmasterStart time.Time
	WAL             WAL
	// Replication is "streaming" on a replica that does, "in archive recovery", or empty where an old Patroni or a server
	// that does not answer does not tell it.
	Replication    string
	SyncStandby    bool // it is in the DCS as a synchronous standby, of a quorum too
	WatchdogFailed bool // it will not be promoted
	Tags           map[string]any
}

// WAL is how far a server has come, in bytes since the beginning of its WAL; 0: not told.
type WAL struct {
	Written            int64 // by a primary, flushed
	Received, Replayed int64 // by a replica
	ReplayedAt         time.Time
	ReplayPaused       bool
}

// Primary reports whether the role is that of a writable leader, under its name in any version.
func (h Health) Primary() bool { return IsPrimaryRole(h.Role) }

// IsPrimaryRole reports whether a role, as Patroni tells it in its REST API or to a callback, is that of a writable leader: "master" until
// Patroni 3, "primary" since 4, "promoted" while a promotion is under way. "standby_leader" is not writable.
func IsPrimaryRole(role string) bool {
	return role == "primary" || role == "master" || role == "promoted"
}

// Leader asks GET /leader. Answers 200 and 503 are both a Health; an answer of any other status, or one that
// is not Patroni's (a proxy's error page), is an [*Error].
func (c *Client) Leader(ctx context.Context) (Health, error) {
	const path = "/leader"
	status, body, err := c.do(ctx, http.MethodGet, path, http.StatusOK, http.StatusServiceUnavailable)
	if err != nil {
		return Health{}, err
	}
	var a struct {
		State           string      `json:"state"`
		Role            string      `json:"role"`
		ServerVersion   int         `json:"server_version"`
		Timeline        int         `json:"timeline"`
		DCSLastSeen     json.Number `json:"dcs_last_seen"`
		Pause           bool        `json:"pause"`
		ClusterUnlocked bool        `json:"cluster_unlocked"`
		PendingRestart  bool        `json:"pending_restart"`
		Reason          reason      `json:"pending_restart_reason"`
		SystemID        string      `json:"database_system_identifier"`
		Started         string      `json:"postmaster_start_time"`
		Replication     string      `json:"replication_state"`
		Sync            bool        `json:"sync_standby"`
		Quorum          bool        `json:"quorum_standby"`
		WatchdogFailed  bool        `json:"watchdog_failed"`
		Tags            tags        `json:"tags"`
		WAL             wal         `json:"xlog"`
		Patroni         *struct {
			Name    string `json:"name"`
			Scope   string `json:"scope"`
			Version string `json:"version"`
		} `json:"patroni"`
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return Health{}, c.garbage(http.MethodGet, path, status, body, err)
	}
	if a.State == "" || a.Patroni == nil {
		return Health{}, c.garbage(http.MethodGet, path, status, body, errors.New("no state"))
	}
	h := Health{
		HasLock: status == http.StatusOK, StatusCode: status, State: c.text(a.State), Role: c.text(a.Role),
		ServerVersion: a.ServerVersion, Timeline: a.Timeline, Maintenance: a.Pause,
		ClusterUnlocked: a.ClusterUnlocked, PendingRestart: a.PendingRestart, PendingRestartReason: c.reasons(a.Reason),
		PostmasterStart: pythonTime(a.Started), WAL: WAL(a.WAL), Replication: c.text(a.Replication), SyncStandby: a.Sync || a.Quorum,
		WatchdogFailed: a.WatchdogFailed, Tags: a.Tags,
		SystemID: c.text(a.SystemID), Name: c.text(a.Patroni.Name), Scope: c.text(a.Patroni.Scope), Version: c.text(a.Patroni.Version),
	}
	if seen, err := a.DCSLastSeen.Float64(); err == nil && seen >= 1 && seen < math.MaxInt32*4 {
		h.DCSLastSeen = time.Unix(int64(seen), 0)
	}
	return h, nil
}

func (c *Client) garbage(method, path string, status int, body []byte, err error) error {
	return &Error{Method: method, Path: path, StatusCode: status, Body: c.shorten(body), Connected: true,
		Err: fmt.Errorf("the answer is not Patroni's: %w", peer.Error(err, c.secrets()...))}
}

// Patroni's own values where the DCS holds none (config.py, 4.0.7 and 4.1.5).
const (
	DefaultTTL          = 30 * time.Second
	DefaultLoopWait     = 10 * time.Second
	DefaultRetryTimeout = 10 * time.Second
)

// MinTTL is what Patroni raises a smaller ttl to (4.0.7 and 4.1.5).
const MinTTL = 20 * time.Second

// Dynamic is the cluster-wide configuration as it is written in the DCS. Patroni raises values
// that are too small (ttl to 20 s) and lowers loop_wait and retry_timeout where they do not fit ttl,
// without writing that back.
type Dynamic struct {
	TTL                time.Duration // of the leader lock
	LoopWait           time.Duration
	RetryTimeout       time.Duration
	PrimaryStopTimeout time.Duration  // master_stop_timeout before 4.0; 0: no limit
	Raw                map[string]any // all of it; at most 1 MiB of JSON
}

// Dynamic asks GET /config. A key that is missing has Patroni's default. 502 is an [*Error]: Patroni does
// not know the configuration (no cluster yet, or no DCS).
func (c *Client) Dynamic(ctx context.Context) (Dynamic, error) {
	const path = "/config"
	status, body, err := c.do(ctx, http.MethodGet, path, http.StatusOK)
	if err != nil {
		return Dynamic{}, err
	}
	d := Dynamic{}
	if err := json.Unmarshal(body, &d.Raw); err != nil {
		return Dynamic{}, c.garbage(http.MethodGet, path, status, nil, err) // the body may hold passwords
	}
	for _, k := range []struct {
		names    []string
		to       *time.Duration
		fallback time.Duration
	}{
		{[]string{"ttl"}, &d.TTL, DefaultTTL},
		{[]string{"loop_wait"}, &d.LoopWait, DefaultLoopWait},
		{[]string{"retry_timeout"}, &d.RetryTimeout, DefaultRetryTimeout},
		{[]string{"primary_stop_timeout", "master_stop_timeout"}, &d.PrimaryStopTimeout, 0},
	} {
		*k.to = k.fallback
		for _, name := range k.names {
			v, ok := d.Raw[name]
			if !ok || v == nil {
				continue
			}
			if *k.to, ok = seconds(v); !ok {
				return Dynamic{}, c.garbage(http.MethodGet, path, status, nil, fmt.Errorf("%s is not a number of seconds", name))
			}
			break
		}
	}
	return d, nil
}

// Setting is one of postgresql.parameters as text: a string as it is, a number and a boolean as JSON has them. ok is false
// where it is not set, or null, which takes it away.
func (d Dynamic) Setting(name string) (value string, ok bool) {
	server, _ := d.Raw["postgresql"].(map[string]any)
	parameters, _ := server["parameters"].(map[string]any)
	switch v := parameters[name].(type) {
	case string, bool, float64:
		return text(v), true
	default:
		return "", false
	}
}

// PermanentLogical reports whether Patroni keeps a logical replication slot on all members (slots in its configuration).
func (d Dynamic) PermanentLogical(slot string) bool {
	all, _ := d.Raw["slots"].(map[string]any)
	one, _ := all[slot].(map[string]any)
	return one["type"] == "logical"
}

// seconds reads 30, 30.0 and "30", as Patroni does.
func seconds(v any) (time.Duration, bool) {
	var f float64
	switch v := v.(type) {
	case float64:
		f = v
	case string:
		var err error
		if f, err = strconv.ParseFloat(strings.TrimSpace(v), 64); err != nil {
			return 0, false
		}
	default:
		return 0, false
	}
	if !(f >= 0 && f < 1e9) {
		return 0, false
	}
	return time.Duration(f * float64(time.Second)), true
}

// Change is a parameter's value that waits for a restart.
type Change struct{ Old, New string }

// reason reads {parameter: {"old_value": …, "new_value": …}}; a value is text, a number or null. What it does not
// understand is no error: a guard asks for the lock, and must not fail over this.
type reason map[string]Change

func (r *reason) UnmarshalJSON(b []byte) error {
	*r = nil
	var changes map[string]struct {
		Old any `json:"old_value"`
		New any `json:"new_value"`
	}
	if json.Unmarshal(b, &changes) != nil || len(changes) > maxReasons {
		return nil
	}
	for name, c := range changes {
		if *r == nil {
			*r = reason{}
		}
		(*r)[name] = Change{text(c.Old), text(c.New)}
	}
	return nil
}

const maxReasons = 1000 // of a pending restart: PostgreSQL 18 has 400 settings

// text makes a name or a word of Patroni's fit for logs and terminals. It leaves what is usual as it is.
func (c *Client) text(s string) string { return peer.Text(s, c.secrets()...) }

func (c *Client) reasons(changes reason) map[string]Change {
	if changes == nil {
		return nil
	}
	out := map[string]Change{}
	for name, change := range changes {
		out[c.text(name)] = Change{c.text(change.Old), c.text(change.New)}
	}
	return out
}

func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case float64: // %v would write 1e+06
		return strconv.FormatFloat(v, 'f', -1, 64)
	default:
		return fmt.Sprint(v)
	}
}

// Reload asks POST /reload. Patroni only schedules it (202): it is done in the loop that follows, up to
// loop_wait later.
func (c *Client) Reload(ctx context.Context) error {
	_, _, err := c.do(ctx, http.MethodPost, "/reload", http.StatusAccepted, http.StatusOK)
	return err
}
