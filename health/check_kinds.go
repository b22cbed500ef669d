package health

import "github.com/pgbaton/pgbaton/api"

// kind is what all findings of one id have in common.
type kind struct {
	severity string
	why      string
}

func spoils(why string) kind { return kind{api.SeverityError, why} }
func costs(why string) kind  { return kind{api.SeverityWarning, why} }

// kinds are the findings by their ids, which are the headings of docs/checks.md. An id never changes its meaning.
func kinds() map[string]kind {
	return map[string]kind{
		// This member.
		"configuration": spoils("every hook exits with code 2 and pauses nothing"),
		"configuration-odd": costs("the hooks go on without what is odd, such as a password file that others can read: a login can fail " +
			"for want of it"),
		"state-directory": costs("nobody takes up the lease of a keeper that is killed: the pause stands until the next handover or " +
			"pgbaton resume"),
		"no-poolers": spoils("nothing is paused: the stop disconnects every client"),
		"pause-budget": spoils("the guard could wait for longer than the leader lock lasts, so every hook refuses this " +
			"configuration and pauses nothing"),
		"shutdown-budget": costs("while Patroni shuts down nobody renews the leader lock, and the guard ends 5 s before it can " +
			"expire: the rest of the budget is never used"),
		"patroni-unreachable":   spoils("the guard cannot tell how long it may wait, and takes the short budget"),
		"server-unreachable":    spoils("the hooks cannot tell whether this server is the primary"),
		"writable-without-lock": spoils("two servers may be writable at the same time"),
		"patroni-times": costs(
			"Patroni works with a shorter loop_wait or retry_timeout than is configured, or lets the leader lock expire " +
				"while the DCS does not answer, which is a failover",
		),
		"lease-short": costs("a replica that does not notice at once that the lock is free takes it in its next loop: the lease can end " +
			"before anybody is the primary, and clients get errors"),
		"file-permissions": costs("who can write this file decides what the hooks do, and who can read a password file can pause " +
			"every pooler"),
		// Patroni.
		"hooks-missing": spoils("without before_stop no pooler is paused, and without on_role_change none is resumed before the " +
			"lease ends"),
		"hooks-misplaced": spoils("Patroni silently ignores before_stop there, so no pooler is paused"),
		"hooks-incomplete": costs("Patroni reports restarts and starts only by these callbacks: without them poolers are resumed " +
			"later, after a start only when the lease ends"),
		"hooks-program":       spoils("Patroni cannot run it and goes on without it"),
		"hooks-other-program": costs("it can be a script that calls pgbaton, or an older hook that this check cannot judge"),
		"hooks-not-visible":   costs("Patroni may or may not run the hooks: without before_stop no pooler is paused"),
		"patroni-version":     spoils("Patroni before 3.0.3 silently ignores before_stop, so no pooler is paused"),
		"init-does-not-reap": costs("the stopped postmaster stays a zombie, Patroni takes it for a running server, and each handover " +
			"takes a second longer"),
		"postmaster-not-visible": costs("the guard cannot stop the drained server itself: Patroni polls once a second, and a switchover " +
			"takes about 0.9 s longer"),
		"maintenance-mode": spoils("Patroni promotes nobody by itself, and when its container is stopped PostgreSQL is killed " +
			"without any hook"),
		"pending-restart": costs("the next stop and start of this server applies them, also where that is a handover"),
		// Poolers.
		"pooler-unreachable":   spoils("it is not paused: its clients lose their connections"),
		"pooler-shutting-down": spoils("it can be neither paused nor resumed: its clients lose their connections in a handover"),
		"peers-not-listed":     spoils("PAUSE reaches one process only: the clients of the others lose their connections"),
		"other-cluster":        costs("a pause stops the clients of the other cluster, too, for as long as a handover of this one takes"),
		"no-console":           costs("a signal is never answered: nobody sees whether it is paused and drained, nor its settings"),
		"pooler-paused":        spoils("its clients wait already, and nobody of pgbaton ends this pause"),
		"keeper-gone":          spoils("its clients may wait without limit"),
		"console-user": spoils("PgBouncer refuses PAUSE to this user: the pooler is not paused, and its clients lose their " +
			"connections"),
		"several-processes": spoils("PAUSE reaches only one of them: the clients of the others lose their connections"),
		"pool-mode": spoils("a session keeps its server connection until the client disconnects: the pool is never drained, " +
			"and when the budget is spent these clients are disconnected"),
		"query-wait-timeout":   spoils("PgBouncer disconnects clients that wait for longer, and a pause can last for longer"),
		"client-login-timeout": spoils("PgBouncer disconnects clients that wait for longer to log in, and a pause can last for longer"),
		"server-login-retry": costs("pgbaton cannot lower it during a handover: after a failed login the pool waits for this long, " +
			"and so do its clients"),
		"server-login-retry-zero": costs("when the primary crashes, every client gets an error at once instead of waiting for the new " +
			"one; it looks like a value that was set by hand for a handover"),
		"database-disabled": costs("PgBouncer refuses the clients of this database, with or without a handover"),
		// The way from the poolers to the primary.
		"one-member": spoils("after a switchover its clients are on a replica, or on nothing"),
		"one-member-database": costs("after a switchover its clients are where they were before: right for reading from this member, an " +
			"error for every write otherwise"),
		"host-list": spoils("PgBouncer takes any of the hosts and does not look which one is the primary: clients write to " +
			"replicas"),
		"route-elsewhere": spoils("clients do not reach the primary by it now, and after a handover the worker waits for it in vain"),
		"route-login": costs("the worker cannot see when the route leads to the new primary and resumes at once: behind HAProxy " +
			"or a slow Service, clients then get errors"),
		"route-unreachable": costs("the worker cannot see from here when the route leads to the new primary, and waits for it"),
		"route-not-visible": costs("the worker cannot see when the poolers reach the new primary, and resumes at once"),
		"agent-unreachable": costs("after a handover the worker waits 5 s for this agent, and then resumes without having seen where the " +
			"pooler leads"),
		"route-cached": costs("after the name has moved the pooler goes to the old address for that long"),
		"follow-file":  spoils("its clients stay on a server that takes no writes after a switchover"),
		"follow-alone": costs("clients that other members' poolers forward to this one are not held when this server stops: they lose " +
			"what is in flight"),
		// The other members.
		"cluster-not-visible": costs("whether a member can take over is not checked; Patroni reads the DCS for it"),
		"single-member":       costs("a restart in place works, a switchover does not"),
		"no-candidate":        spoils("Patroni refuses a switchover, and after a stop of the primary nobody takes over"),
		"synchronous-strict": costs(
			"after a switchover nobody can be the synchronous standby until the old primary is back as a replica: " +
				"every commit waits for it",
		),
		"logical-slot": costs("after a promotion of this member its subscriber misses changes, or gets them a second time"),
		"slots-differ": costs("as the primary it may have too few slots for the other members and subscribers"),
		"member-api-unreachable": costs("Patroni asks the candidates by it before a switchover, and passes over who does not answer; its " +
			"version is not checked"),
		"replica-lag": costs("it cannot take over soon: a promotion waits until what was received is replayed"),
		"replay-paused": costs("a promotion ends the pause of replay, and waits until everything is replayed; until then nobody is " +
			"writable"),
		"parameter-differs":  spoils("a standby whose value is smaller than the primary's does not start, or stops replaying"),
		"member-not-visible": costs("its replay, its parameters and its transactions are not checked"),
		"member-not-checked": costs("its hooks, files and init, its logins over the network and the way it sees the poolers are not " +
			"checked"),
		// Work that is in the way.
		"transactions-not-visible": costs("the guard does not see them either: it pauses while one is open, and everybody waits for it"),
		"long-transaction": spoils("the guard waits for it until the budget is spent; then the stop ends it, and its client gets " +
			"an error"),
		"prepared-transaction": costs("it keeps its locks and holds back vacuum on the new primary, too, until somebody finishes it"),
		"archive-failing":      costs("PostgreSQL tries to archive before it stops: a stop takes longer"),
		"archive-backlog":      costs("PostgreSQL archives all of them before it stops: a stop takes longer"),
	}
}
