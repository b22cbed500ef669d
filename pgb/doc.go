// Package pgb drives PgBouncer: the admin console of one pooler, a fleet of them, and the signals of a pooler on the same machine.
//
// # The console
//
// [Connect] opens an admin console. pgconn does the address, TLS and authentication; after that the connection is taken over (hijacked),
// because pgconn sends a cancel request when a context ends, and PgBouncer answers a cancel request during PAUSE with a RESUME (1.18 to
// 1.26). A [Console] speaks the simple query protocol, one statement at a time. When a context ends during a statement the connection is
// closed and nothing else is sent.
//
// # What PAUSE means
//
// The pooler stops handing out server connections the moment it reads PAUSE, and answers when every server connection has been closed.
// The answer cannot be taken at its word:
//
//   - "already paused" says nothing about what still runs;
//   - after any WAIT_CLOSE in the life of the process, PAUSE answers at once with the tag WAIT_CLOSE;
//   - the answer to a PAUSE that somebody else resumed never comes, or comes for a later pause.
//
// So [Pooler.Pause] believes the tag PAUSE only, and otherwise counts the server connections itself. A PAUSE outlives the connection that
// sent it: whoever sends one must have armed the RESUME before.
//
// # Marks
//
// A pause needs `server_login_retry` near zero: with the default of 15 s, one server login that the pause interrupts keeps the pool from
// the new primary that long. The old value has to come back whoever ends the pause, also on another machine that has never seen it. So
// the pooler carries it: see [Mark].
//
// # Reload
//
// Before 1.25 RELOAD answers the same for a good file and for one that PgBouncer stopped reading half way through, and a signal never
// answers. So a reload has three looks at the file: [pgbini.ReadFile] finds what every version refuses, [pgbini.File.Check] what the
// running one refuses, both before anything is sent; [pgbini.File.Diff] afterwards what is not in force. What no version tells (1.18 to
// 1.26), in its answer or in SHOW CONFIG, is in its log only: an auth_file or auth_hba_file that cannot be read or parsed, and, before
// 1.25, a certificate that cannot be loaded. A logfile that cannot be opened ends the process at its next log line.
//
// # Fleets
//
// [Resolve] turns the configured entries into poolers: every address behind a name is a pooler of its own, since PAUSE reaches just the
// process that reads it. A pooler whose console does not answer but whose pidfile is at hand is driven with signals ([Process]).
package pgb
