// Package operation runs what callers ask for, one after the other, and remembers what has become of it.
//
// # Operations
//
// An operation is written to the disk before anything is done. One runs at a time, except a resume: that is what one asks for when clients
// wait, so it is never refused for another operation; it ends a pause that is under way. What is asked for with a key is done once, however
// often it is asked for.
//
// # After a kill
//
// A [Runner] finds the operations of the process before it: one that had not begun has failed; one that ran is unknown, and is looked after
// until the judge of its kind can tell from the poolers, the lease and the journal what it came to. Unknown is never called failed, and
// nothing is done a second time.
//
// # Walls
//
// The package does not know who asks, or over what: package httpapi speaks HTTP for it, and a command line may use it without.
package operation
