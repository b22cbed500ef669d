package health

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

const session = "session" // a pool_mode

func judgePooler(f *findings, v view, p poolerView) {
	name := p.status.Pooler
	switch {
	case p.ending:
		f.add(
			"pooler-shutting-down",
			name,
			"wait until it has ended and its successor runs; or let its clients connect to another one and "+
				"end it",
			"pooler %s: its process runs and takes no connections any more: %s",
			name,
			strings.TrimPrefix(p.status.Error,
				"pooler "+name+": "),
		)
	case p.status.Error != "":
		f.add("pooler-unreachable", name,
			"start it, or mend its entry in poolers: the address, or the password (password_file or a pgpass file)",
			"pooler %s: %s", name, strings.TrimPrefix(p.status.Error, "pooler "+name+": "))
	case (p.status.Paused == "yes" || len(p.status.Databases) > 0) && p.status.PausedBy == "":
		f.add("pooler-paused", name, "RESUME in its admin console, or pgbaton resume", "pooler %s is paused, and not by pgbaton", name)
	}
	if p.state == nil {
		if p.status.Error == "" {
			f.add("no-console", name, "set dsn in its entry of poolers, beside pidfile", "pooler %s has no console", name)
		}
		return
	}
	judgePoolMode(f, p)
	judgeWaits(f, v, p)
	judgeLoginRetry(f, p)
	var disabled []string
	for _, d := range p.databases() {
		if d.Disabled {
			disabled = append(disabled, d.Name)
		}
	}
	if len(disabled) > 0 {
		f.add("database-disabled", name, "ENABLE it in its admin console, or take it out of pgbouncer.ini", "pooler %s: disabled: %s", name,
			strings.Join(disabled, ", "))
	}
	if v.further == nil {
		return
	}
	more, looked := v.further.poolers[name]
	if !looked {
		return
	}
	for _, user := range slices.Sorted(maps.Keys(more.modes)) {
		if more.modes[user] == session {
			f.add("pool-mode", name, "set pool_mode = transaction for it in [users] of pgbouncer.ini, and RELOAD",
				"pooler %s: pool_mode = session for user %s", name, user)
		}
	}
	var refused *pgb.ServerError
	if errors.As(more.mayPause, &refused) {
		f.add("console-user", name, "add the user of poolers[].dsn to admin_users in pgbouncer.ini, and RELOAD",
			"pooler %s: its console does not let this user pause: %s", name, refused.Message)
	}
	if listed := len(v.poolers) + len(v.unresolved); more.peers >= listed && !more.several {
		f.add("peers-not-listed", name, "list each of them in poolers, by an address or a Unix socket of its own",
			"pooler %s has %d peers, and %d of these processes at most are among the poolers here", name, more.peers, listed)
	}
	if more.several {
		f.add("several-processes", name, "list each process in poolers by an address or a Unix socket of its own (a headless Service, not "+
			"a load balancer)",
			"pooler %s: several processes answer at this address", name)
	}
}

// databases are those that a pause stops.
func (p poolerView) databases() []pgbini.Database {
	if p.state == nil {
		return nil
	}
	var ours []pgbini.Database
	for _, d := range p.state.Databases {
		if p.ours == nil || slices.Contains(p.ours, d.Name) {
			ours = append(ours, d)
		}
	}
	return ours
}

func judgePoolMode(f *findings, p poolerView) {
	standard := p.state.Setting("pool_mode")
	databases := p.databases()
	var in []string
	for _, d := range databases {
		if mode := d.PoolMode; mode == session || mode == "" && standard == session {
			in = append(in, d.Name)
		}
	}
	const change = "set pool_mode = transaction in pgbouncer.ini, and RELOAD; clients must not need session state"
	switch {
	case len(in) > 0:
		f.add("pool-mode", p.status.Pooler, change, "pooler %s: pool_mode = session: %s", p.status.Pooler, strings.Join(in, ", "))
	case len(databases) == 0 && standard == session: // entries of a "*" line that nobody uses at the moment
		f.add("pool-mode", p.status.Pooler, change, "pooler %s: pool_mode = session", p.status.Pooler)
	}
}

// judgeWaits compares how long a client may wait with how long a pause may last: the guard's budget, and then until the lease ends.
func judgeWaits(f *findings, v view, p poolerView) {
	longest := v.config.Pause.Budget + v.config.Pause.Lease
	for _, x := range []struct{ id, setting string }{{"query-wait-timeout", "query_wait_timeout"}, {"client-login-timeout",
		"client_login_timeout"}} {
		limit, ok := seconds(p.state.Setting(x.setting))
		if ok && limit > 0 && limit < longest {
			f.add(x.id, p.status.Pooler, fmt.Sprintf("set %s to %d or more in pgbouncer.ini, and RELOAD; or lower pause.lease", x.setting,
				int(longest/time.Second)+1),
				"pooler %s: %s is %s, and a pause may last for %s (pause.budget %s and pause.lease %s)",
				p.status.Pooler, x.setting, limit, longest, v.config.Pause.Budget, v.config.Pause.Lease)
		}
	}
}

func judgeLoginRetry(f *findings, p poolerView) {
	retry := p.state.LoginRetry
	if p.state.Mark != nil {
		retry = p.state.Mark.Original
	}
	name := p.status.Pooler
	switch {
	case retry == 0:
		f.add("server-login-retry-zero", name, "RELOAD in its admin console puts back the value of pgbouncer.ini; 15 is PgBouncer's own",
			"pooler %s: server_login_retry is 0", name)
	case !pgb.CanCarry(retry):
		f.add("server-login-retry", name, "set server_login_retry to a multiple of 0.1 s, 99.9 s at most, in pgbouncer.ini, and RELOAD",
			"pooler %s: server_login_retry is %s", name, retry)
	}
}
