// Package hooks is what pgbaton does when Patroni calls it, or a person in its place: hold the poolers
// before the primary stops, let them go when the new one is writable and the route leads there, and see to
// it that no pause outlives its reason.
//
// # Who runs
//
// [BeforeStop] is the guard. It runs in Patroni's stop and must never take longer than the leader lock
// lasts. [OnRoleChange] starts [Work], the worker, and returns at once: Patroni kills a callback when the
// next one comes, and a process that was handed to init stays. [Keep] is the lease keeper that every
// pause leaves behind; it resumes when nobody else has.
//
// # Where the decisions are
//
// decide.go holds the one that matters: whether a stop is ours to hold, and for how long. It is a pure
// function of what the local server and Patroni have said, asked again for every new answer. It returns a
// sentence; the sentence is the log line, stands in the journal, and is what the tests compare.
//
// # What members share
//
// Nothing but the poolers. What the next primary must know of a pause, the pooler carries (pgb.Mark).
// The state directory holds locks, the lease and the journal of this member; without one, hooks work all the same.
package hooks
