package health

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/postgres"
)

const (
	// lagLimit is what a standby replays in about a second: 16 MiB, one WAL file.
	lagLimit = 16 << 20
	// archiveLimit is how many WAL files may wait to be archived: what an archiver that keeps up has at most at a busy moment.
	archiveLimit = 16
	// defaultMaximumLag is Patroni's maximum_lag_on_failover where the DCS holds none (config.py, 4.0.7 and 4.1.5).
	defaultMaximumLag = 1 << 20
)

func port[N int | uint16](n N) string { return strconv.Itoa(int(n)) }

// judgeCluster is about the other members as the DCS has them.
func judgeCluster(f *findings, v view) {
	if v.further.cluster == nil {
		if v.further.unseen != nil && v.patroniErr == nil { // else that has been told
			f.add("cluster-not-visible", "patroni", "look at the DCS, and at Patroni's log", "the members of the cluster are not known: %v",
				v.further.unseen)
		}
		return
	}
	cluster := *v.further.cluster
	for _, m := range cluster.Members {
		if m.PendingRestart {
			pendingRestart(f, m.Name, m.PendingRestartReason)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.further.apis)) {
		switch api := v.further.apis[name]; {
		case api.err != nil:
			f.add("member-api-unreachable", name, "look at Patroni on it, at restapi.connect_address, and at what is between the members",
				"the REST API of member %s: %v", name, api.err)
		case patroni.OlderThan(api.version, 3, 0, 3):
			f.add("patroni-version", name, "upgrade Patroni to 3.0.3 or later", "Patroni of member %s is %s", name, api.version)
		}
	}
	if len(cluster.Members) == 1 {
		f.add("single-member", cluster.Members[0].Name, "add a replica for switchovers", "the cluster has one member only")
		return
	}
	leader, ok := cluster.Leader()
	if !ok || leader.Role == "standby_leader" {
		return
	}
	var unfit []string
	may := 0 // be a synchronous standby
	for _, m := range cluster.Members {
		if m.Leader() {
			continue
		}
		if why := unfitCandidate(v, leader, m); why != "" {
			unfit = append(unfit, m.Name+" "+why)
		}
		if maySync(m) {
			may++
		}
		if lag := replicaLag(v, m); lag > lagLimit {
			f.add("replica-lag", m.Name, "wait until it has caught up, or name another candidate", "member %s is %d MiB behind", m.Name,
				lag>>20)
		}
	}
	judgeStrict(f, v, may)
	if len(unfit) == len(cluster.Members)-1 {
		f.add("no-candidate", "", "mend one of them: patronictl list", "no member can take over: %s", strings.Join(unfit, ", "))
	}
}

// unfitCandidate says why Patroni would not promote a member in a switchover.
func unfitCandidate(v view, leader, m patroni.Member) string {
	maximum := int64(defaultMaximumLag)
	if limit, ok := v.dynamic.Raw["maximum_lag_on_failover"].(float64); ok {
		maximum = int64(limit)
	}
	switch {
	case m.State != "running" && m.State != "streaming":
		return "is " + m.State
	case noFailover(m):
		return "has the tag nofailover"
	case isSynchronous(v.dynamic) && m.Role != "sync_standby" && m.Role != "quorum_standby":
		return "is no synchronous standby"
	case m.Timeline != 0 && leader.Timeline != 0 && m.Timeline != leader.Timeline:
		return "is on another timeline"
	case m.Lag.Known && m.Lag.Bytes > maximum:
		return fmt.Sprintf("is %d MiB behind (maximum_lag_on_failover)", m.Lag.Bytes>>20)
	case !m.Lag.Known:
		return "has an unknown lag"
	}
	return ""
}

// judgeStrict is about who is left to be a synchronous standby when one of so many has become the primary.
func judgeStrict(f *findings, v view, may int) {
	if isOn(v.dynamic.Raw["synchronous_mode_strict"]) && isSynchronous(v.dynamic) && may == 1 {
		f.add("synchronous-strict", "synchronous_mode_strict", "add a replica that may be a synchronous standby, or switch "+
			"synchronous_mode_strict off for the maintenance (patronictl edit-config)",
			"synchronous_mode_strict is on, and one replica only may be a synchronous standby")
	}
}

// maySync reports whether a member that is not the leader can be a synchronous standby (tag nosync; state).
func maySync(m patroni.Member) bool {
	return !m.Leader() && !isOn(m.Tags["nosync"]) && (m.State == "running" || m.State == "streaming")
}

// isOn reads what Patroni takes for true.
func isOn(value any) bool {
	switch v := value.(type) {
	case bool:
		return v
	case string:
		return slices.Contains([]string{"on", "true", "yes"}, strings.ToLower(v))
	}
	return false
}

// isSynchronous: true, "on" and "quorum" (4.0 and later).
func isSynchronous(d patroni.Dynamic) bool {
	mode, _ := d.Raw["synchronous_mode"].(string)
	return isOn(d.Raw["synchronous_mode"]) || strings.EqualFold(mode, "quorum")
}

// replicaLag is how many bytes a member has not received, or received and not replayed, whichever is more.
func replicaLag(v view, m patroni.Member) int64 {
	var lag int64
	if m.Lag.Known {
		lag = m.Lag.Bytes
	}
	if s, ok := v.server(m.Name); ok {
		lag = max(lag, s.ready.ReplayLag)
	}
	return lag
}

// server is what was seen of a member's server, this one's or another's.
func (v view) server(member string) (serverView, bool) {
	s, ok := v.further.members[member]
	if member == v.health.Name && v.further.own != nil {
		s, ok = *v.further.own, true
	}
	return s, ok && s.err == nil
}

// judgeServers is about what the members' servers say themselves.
func judgeServers(f *findings, v view) {
	servers := maps.Clone(v.further.members)
	if v.further.own != nil {
		if servers == nil {
			servers = map[string]serverView{}
		}
		servers[v.health.Name] = *v.further.own
	}
	var primary *serverView
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		s := servers[name]
		switch {
		case s.err != nil && name == v.name(): // told already
		case s.err != nil:
			f.add("member-not-visible", name, "give the user of postgres: a line in pg_hba.conf for this machine, and in the passfile a "+
				"password for this address",
				"cannot log in to the server of member %s: %v", name, s.err)
		case s.ready.InRecovery:
			if s.ready.ReplayPaused {
				f.add("replay-paused", name, "SELECT pg_wal_replay_resume() on it", "replay is paused on member %s", name)
			}
		default:
			primary = &s
			judgePrimary(f, v, name, s)
		}
	}
	if primary == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		s := servers[name]
		if s.err != nil || !s.ready.InRecovery {
			continue
		}
		judgeSlots(f, v, name, *primary, s)
		for _, parameter := range postgres.StandbyParameters() {
			if theirs, ours := s.ready.Parameters[parameter], primary.ready.Parameters[parameter]; theirs < ours {
				f.add("parameter-differs", name, "set the same "+parameter+" for all members (patronictl edit-config), take it out of "+
					"local files, and restart this member",
					"member %s: %s is %d, and %d on the primary", name, parameter, theirs, ours)
			}
		}
	}
}

// judgePrimary is about what would be in the way of a stop of the primary.
func judgePrimary(f *findings, v view, name string, s serverView) {
	if s.hidden {
		f.add("transactions-not-visible", name, "GRANT pg_read_all_stats TO the user of postgres:",
			"member %s: this user does not see other users' transactions", name)
	}
	for _, t := range s.transactions {
		if t.Age <= v.config.Pause.Budget {
			continue
		}
		f.add("long-transaction", strconv.Itoa(int(t.PID)), fmt.Sprintf("wait for its end, or SELECT pg_terminate_backend(%d)", t.PID),
			"member %s: process %d (%s, database %s, application %q, %s) is in a transaction since %s; pause.budget is %s",
			name, t.PID, t.User, t.Database, t.Application, t.State, age(t.Age), v.config.Pause.Budget)
	}
	for _, p := range s.ready.Prepared {
		if p.Age > v.config.Pause.Budget {
			f.add("prepared-transaction", p.GID, "COMMIT PREPARED or ROLLBACK PREPARED it in that database",
				"member %s: transaction %q of %s in database %s was prepared %s ago", name, p.GID, p.Owner, p.Database, age(p.Age))
		}
	}
	if s.ready.ArchiveFailed != "" {
		f.add("archive-failing", name, "look at the server's log for the error of archive_command",
			"member %s: %s cannot be archived, and nothing was for %s",
			name, s.ready.ArchiveFailed, age(s.ready.NotArchived))
	}
	if s.ready.ArchiveReady > archiveLimit {
		f.add("archive-backlog", name, "wait until archive_command has caught up", "member %s: %d WAL files wait to be archived", name,
			s.ready.ArchiveReady)
	}
}
