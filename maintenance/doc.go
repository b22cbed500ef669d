// Package maintenance does planned maintenance of a cluster: switchovers and restarts of members, one at a time, as package plan chooses
// them.
//
// # A run
//
// [Run] takes the cluster's lock (lock.go), and then repeats: look at the cluster anew, choose the next step, write it down (record.go),
// have Patroni do it, follow it to its true end (perform.go), wait until the member is as it was. What Patroni answers only says when to
// look: its POST /switchover gives up after 20 s although it goes on, and a 503 of POST /restart has unknown outcomes. A step has happened
// when the cluster shows it: the postmaster was started anew, or another member is primary on a later timeline; and it has not when the
// cluster was untouched for two of Patroni's loops. It is never ordered twice before that is known.
//
// At the end the cluster is looked at for the last time (finish.go), and the exit code and the last line say what that look has found.
//
// # After a crash
//
// The record of a run is on the disk before each step. [Resume] finds out what became of the step that was at work, and goes on. The lock
// stays where it is meanwhile: another run is refused, until it has seen for longer than a minute that nobody renews the entry
// (sighted.go).
//
// # What it costs
//
// While a step runs, the poolers are asked five times a second how many clients wait and for how long (meter.go): nobody else reports what
// a switchover costs the clients.
package maintenance
