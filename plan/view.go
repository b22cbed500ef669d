package plan

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/patroni"
)

// SyncMode is Patroni's synchronous_mode.
type SyncMode string

// Values of synchronous_mode. Quorum: since Patroni 4.0.
const (
	SyncOff    SyncMode = ""
	SyncOn     SyncMode = "on"
	SyncQuorum SyncMode = "quorum"
)

// View is a cluster at one moment.
type View struct {
	Maintenance bool // Patroni's: "pause": true
	Sync        SyncMode
	// CheckTimeline is Patroni's check_timeline: a member of an older timeline is no candidate.
	CheckTimeline bool
	// MaximumLag is maximum_lag_on_failover in bytes; 1 MiB where the DCS holds none.
	MaximumLag int64
	LoopWait   time.Duration
	TTL        time.Duration
	Scheduled  *patroni.Switchover
	Members    []Member
}

// Lag is a distance in WAL. The zero value is one that is not known.
type Lag = patroni.Lag

// Member is one member of the cluster.
type Member struct {
	Name  string
	Role  string // as Patroni has it in GET /cluster: leader, standby_leader, sync_standby, quorum_standby, replica
	State string // as Patroni has it: running, streaming, in archive recovery, stopped, …
	// Reachable: its REST API has answered, to this look. Patroni asks candidates the same way.
	Reachable      bool
	Timeline       int // 0: not known
	PatroniVersion string
	ServerVersion  int       // 170005; 0: not known
	Started        time.Time // of the postmaster; zero: not known

	// Receive is how far the WAL that it has is behind the primary's, Replay how far what it has replayed is.
	Receive, Replay Lag
	// ReplayAge is how old the newest transaction is that it has replayed, where it has received more than that; 0: everything is replayed,
	// or it is not known.
	ReplayAge    time.Duration
	ReplayPaused bool
	// ApplyDelay is how much later than its primary it replays on purpose (recovery_min_apply_delay); 0: not, or not known. It is looked
	// at only while a member is waited for.
	ApplyDelay time.Duration
	// CatchUp are logical slots that Patroni keeps on it and that are not ready: a promotion would lose them.
	CatchUp []string

	Tags           map[string]any // as Patroni has them
	Preferred      bool           // of those that are fit it comes before the others
	WatchdogFailed bool

	PendingRestart bool
	// Pending are the parameters that wait for a restart. None with PendingRestart: not known which (Patroni before 3.3).
	Pending map[string]patroni.Change
}

// Leader reports whether it holds the leader lock.
func (m Member) Leader() bool { return m.Role == "leader" || m.Role == "standby_leader" }

// Synchronous reports whether Patroni counts it among the synchronous standbys.
func (m Member) Synchronous() bool { return m.Role == "sync_standby" || m.Role == "quorum_standby" }

// archiveRecovery is the state of a standby that reads from the archive, not from its primary.
const archiveRecovery = "in archive recovery"

// Up reports whether its server runs, and does not read from the archive.
func (m Member) Up() bool { return m.State == "running" || m.State == "streaming" }

// Streaming reports whether a standby is connected to the server that it follows. Patroni before 3.0.4 does not tell: there it is one that
// runs.
func (m Member) Streaming() bool {
	return m.State == "streaming" || m.State == "running" && (m.PatroniVersion == "" || patroni.OlderThan(m.PatroniVersion, 3, 0, 4))
}

// Busy reports whether its server is on its way up or down: a member at work.
func (m Member) Busy() bool {
	switch m.State {
	case "starting", "restarting", "stopping", "creating replica", "initializing new cluster", "running custom bootstrap script":
		return true
	}
	return false
}

// NoFailover is Patroni's: nofailover counts over failover_priority, which forbids it where it is not above 0.
func (m Member) NoFailover() bool {
	if tag, ok := m.Tags["nofailover"]; ok && tag != nil {
		return truthy(tag)
	}
	priority, ok := number(m.Tags["failover_priority"])
	return ok && priority <= 0
}

// FailoverPriority is Patroni's: 1 where none is set.
func (m Member) FailoverPriority() int {
	if truthy(m.Tags["nofailover"]) {
		return 0
	}
	if priority, ok := number(m.Tags["failover_priority"]); ok {
		return priority
	}
	return 1
}

// truthy is Python's bool of a JSON value.
func truthy(v any) bool {
	switch v := v.(type) {
	case bool:
		return v
	case float64:
		return v != 0
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	}
	return false
}

func number(v any) (int, bool) {
	switch v := v.(type) {
	case float64:
		return int(v), true
	case string:
		n, err := strconv.Atoi(strings.TrimSpace(v))
		return n, err == nil
	}
	return 0, false
}

// Leader returns the member that holds the lock.
func (v View) Leader() (Member, bool) {
	i := slices.IndexFunc(v.Members, Member.Leader)
	if i < 0 {
		return Member{}, false
	}
	return v.Members[i], true
}

// Member returns a member by its name.
func (v View) Member(name string) (Member, bool) {
	i := slices.IndexFunc(v.Members, func(m Member) bool { return m.Name == name })
	if i < 0 {
		return Member{}, false
	}
	return v.Members[i], true
}

// replicas are the members that do not hold the lock.
func (v View) replicas() []Member {
	return slices.DeleteFunc(slices.Clone(v.Members), Member.Leader)
}

// open returns the leader of a cluster that may be worked on.
func (v View) open() (Member, error) {
	if v.Maintenance {
		return Member{}, refuse(MaintenanceMode, "end it: patronictl resume",
			"Patroni is in maintenance mode, in which it does not start a member that is stopped")
	}
	if s := v.Scheduled; s != nil {
		return Member{}, refuse(SwitchoverScheduled, "wait for it, or take it back: patronictl flush CLUSTER switchover",
			"a switchover is scheduled for %s", s.At.Format(time.RFC3339))
	}
	leader, ok := v.Leader()
	switch {
	case !ok:
		return Member{}, refuse(NoLeader, "look at patronictl list, and at Patroni's logs", "nobody is primary")
	case leader.Role == "standby_leader":
		return Member{}, refuse(StandbyCluster, "do it with patronictl: no client writes here",
			"this is a standby cluster, %s follows another one", leader.Name)
	}
	return leader, nil
}
