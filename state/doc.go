// Package state is what a member keeps on disk: its state directory ([Dir]), locks between its processes ([Dir.TryLock]), and the journal
// ([Dir.Journal], [ReadJournal], [Follower]). It knows nothing of what is kept.
//
// [Write] replaces a file as a whole and [Read] reads it within bounds, so that whoever is killed at it leaves the old one. [WriteLocked]
// also locks it for as long as the process that wrote it lives: [Locked] asks for that, and with [Claim] one of several takes over what a
// killed process was responsible for.
//
// Everything works without a state directory, for itself alone: locks hold nobody up, and what is kept is forgotten.
package state
