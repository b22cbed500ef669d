package health

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/peer"
)

// findings collects what the rules find.
type findings struct {
	kinds map[string]kind
	list  []api.Finding
}

func (f *findings) add(id, subject, change, format string, args ...any) {
	k := f.kinds[id]
	// Names of members, databases and programs are what others have written.
	f.list = append(f.list, api.Finding{ID: id, Severity: k.severity, Subject: peer.Text(subject), Found: peer.Text(fmt.Sprintf(format,
		args...)),
		Why: k.why, Change: peer.Text(change)})
}

// told reports whether something was found of an address of the route.
func (f *findings) told(address string) bool {
	return slices.ContainsFunc(f.list, func(x api.Finding) bool {
		return x.Subject == peer.Text(address) && slices.Contains([]string{"route-elsewhere", "route-login", "route-unreachable"}, x.ID)
	})
}

// judge says what would spoil a handover, or make it slower, as far as it can be told from what was seen.
func judge(v view) []api.Finding {
	f := &findings{kinds: kinds()}
	for _, why := range v.unresolved {
		f.add("pooler-unreachable", "poolers", "mend the name, or take the pooler out of poolers", "%s", why)
	}
	judgeConfiguration(f, v)
	judgePatroni(f, v)
	for _, l := range v.leases {
		if l.KeeperGone && v.mayStand(l) {
			f.add("keeper-gone", "", "serve and the next callback of this member take it up, or pgbaton resume",
				"the pause by %s has lost its keeper, nothing ends it at %s", l.Owner, l.Until.Local().Format(time.TimeOnly))
		}
	}
	for _, p := range v.poolers {
		judgePooler(f, v, p)
	}
	if v.further != nil {
		if !v.config.Apart() {
			judgeHooks(f, v)
			judgeInit(f, v)
		}
		judgeRoutes(f, v)
		judgeCluster(f, v)
		judgeServers(f, v)
	}
	return f.list
}

func judgeConfiguration(f *findings, v view) {
	c := v.config
	if len(c.Poolers) == 0 {
		f.add("no-poolers", "poolers", "set poolers in the configuration file", "no poolers are configured")
	}
	switch {
	case config.IsStateDir(v.recheck):
		f.add("state-directory", "state_dir", "", "no state directory, hooks go on without: leases and the journal are not kept, and "+
			"serve does not start: %v", v.recheck)
	case v.recheck != nil:
		f.add("configuration", c.File, "mend it, and run pgbaton status",
			"the configuration is no longer usable, every hook exits with code 2 and pauses nothing: %v", v.recheck)
	}
	for _, w := range c.Warnings {
		f.add("configuration-odd", w.File, "", "configuration: %v", w)
	}
	if v.further != nil {
		for _, file := range v.further.files {
			f.add("file-permissions", file.path, "", "%s: %s", file.path, file.problem)
		}
	}
	ttl := v.dynamic.TTL
	if ttl <= 0 {
		return
	}
	if member.CheckTTL(c.Pause.Budget, ttl) != nil {
		f.add("pause-budget", "pause.budget", fmt.Sprintf("lower pause.budget to %s or raise ttl (patronictl edit-config)",
			ttl-member.LockMargin),
			"pause.budget %s is longer than Patroni's ttl allows: ttl %s less %s = %s", c.Pause.Budget, ttl, member.LockMargin,
			ttl-member.LockMargin)
	}
	judgeTimes(f, v)
	// The last renewal may be a whole loop ago when the shutdown begins. Patroni raises a smaller ttl.
	longest := max(ttl, patroni.MinTTL) - v.dynamic.LoopWait - member.LockMargin
	if c.Pause.ShutdownBudget > longest {
		f.add("shutdown-budget", "pause.shutdown_budget", fmt.Sprintf("lower pause.shutdown_budget to %s", max(longest, 0)),
			"pause.shutdown_budget %s is longer than Patroni's times allow: ttl %s less loop_wait %s less %s = %s",
			c.Pause.ShutdownBudget, ttl, v.dynamic.LoopWait, member.LockMargin, longest)
	}
}

// judgeTimes is about Patroni's own times.
func judgeTimes(f *findings, v view) {
	d := v.dynamic
	if need := d.LoopWait + 2*d.RetryTimeout; d.TTL < need {
		f.add(
			"patroni-times",
			"ttl",
			fmt.Sprintf("raise ttl to %s or more, or lower loop_wait or retry_timeout (patronictl edit-config)", need),
			"ttl is %s, and loop_wait %s with twice retry_timeout %s is %s",
			d.TTL,
			d.LoopWait,
			d.RetryTimeout,
			need,
		)
	}
	if lease := v.config.Pause.Lease; lease < d.LoopWait {
		f.add("lease-short", "pause.lease", fmt.Sprintf("set pause.lease to %s or more, or lower loop_wait (patronictl edit-config)",
			d.LoopWait), "pause.lease %s is shorter than loop_wait %s", lease, d.LoopWait)
	}
}

func judgePatroni(f *findings, v view) {
	if v.patroniErr != nil {
		f.add("patroni-unreachable", "patroni", "look at Patroni's log, and at patroni.url in the configuration file",
			"Patroni's REST API: %v", v.patroniErr)
	}
	if v.serverErr != nil && !v.config.Apart() {
		f.add("server-unreachable", "postgres", "start the server, or mend postgres in the configuration file", "local server: %v",
			v.serverErr)
	}
	if v.writableWithoutLock() {
		f.add("writable-without-lock", "postgres", "look at patronictl list: if another member is the leader, stop this server at once",
			"this server is writable and Patroni does not hold the leader lock")
	}
	if version := v.health.Version; patroni.OlderThan(version, 3, 0, 3) {
		f.add("patroni-version", "patroni", "upgrade Patroni to 3.0.3 or later", "Patroni is %s", version)
	}
	if v.health.Maintenance {
		f.add("maintenance-mode", "patroni", "end it: patronictl resume", "Patroni is in maintenance mode (patronictl pause)")
	}
	if v.health.PendingRestart && (v.further == nil || v.further.cluster == nil) {
		pendingRestart(f, v.health.Name, v.health.PendingRestartReason)
	}
	if dynamic := dynamicHooks(v.dynamic); v.further == nil && dynamic.BeforeStop == "" && dynamic.Callbacks["before_stop"] != "" {
		misplaced(f)
	}
}

// name is this member's; "" on a machine without one, where another member's Patroni has answered.
func (v view) name() string {
	if v.config.Apart() {
		return ""
	}
	return v.health.Name
}

func (v view) writableWithoutLock() bool {
	return v.serverErr == nil && !v.identity.InRecovery && v.patroniErr == nil && !v.health.HasLock
}

// mayStand reports whether the pause of a lease may stand on a pooler. The file of one whose keeper was killed stays when it is over.
func (v view) mayStand(l api.LeaseStatus) bool {
	return len(v.unresolved) > 0 || slices.ContainsFunc(v.poolers, func(p poolerView) bool {
		return p.status.Error != "" || p.status.PausedBy == l.Owner || p.status.PausedBy == "" && p.status.Paused != "no"
	})
}

func pendingRestart(f *findings, name string, reasons map[string]patroni.Change) {
	var changes []string
	for parameter, c := range reasons {
		changes = append(changes, fmt.Sprintf("%s %s to %s", parameter, c.Old, c.New))
	}
	slices.Sort(changes)
	why := ""
	if len(changes) > 0 {
		why = " (" + strings.Join(changes, ", ") + ")"
	}
	f.add("pending-restart", name, "restart it: patronictl restart, replicas first unless a value gets smaller",
		"settings of member %s wait for a restart%s", name, why)
}

// seconds reads a time of SHOW CONFIG.
func seconds(value string) (time.Duration, bool) {
	n, err := strconv.ParseFloat(value, 64)
	if err != nil || n < 0 || n > 1e9 {
		return 0, false
	}
	return time.Duration(n * float64(time.Second)), true
}
