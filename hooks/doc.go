// Package hooks is what pgbaton does when Patroni calls it, or a person in its place: pause the poolers
// before the primary stops, and resume them when the new one is writable and the route leads there.
//
// # Who runs
//
// [BeforeStop] is the guard. It runs in Patroni's stop and must never take longer than the leader lock
// lasts. [OnRoleChange] starts [Work], the worker, and returns at once: Patroni kills a callback when the
// next one comes, and a process that was handed to init stays. Of a restart in place the guard starts the
// worker itself. Every pause leaves a lease keeper behind (package pause), which resumes when nobody else has.
//
// # Where the decisions are
//
// decide.go has the one that matters: whether the guard may hold a stop up, and for how long. It is a pure
// function of what the local server and Patroni have said, asked again for every new answer. It returns a
// sentence; the sentence is the log line, stands in the journal, and is what the tests compare. standby.go
// decides whether a member that may be promoted has all that was written, session.go whether a longer pause
// would free anything. What the guard does is the list of steps in guard.go.
//
// # What members share
//
// Nothing but the poolers. What the next primary must know of a pause, the pooler carries (pgb.Mark).
// The state directory holds locks, the lease and the journal of this member; without one, hooks work all the same.
package hooks
