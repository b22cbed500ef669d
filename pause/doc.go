// Package pause pauses the poolers of a cluster, and sees to it that no pause outlives its reason.
//
// # A fleet is paused
//
// A [Fleet] is all poolers of one pause: of a handover, where the guard of package hooks pauses it ([NewFleet], [Fleet.Arm],
// [Fleet.Attach], [Fleet.Pause]), or of a person ([Pause], [Resume]). The poolers are paused and resumed together. Each carries a mark
// (pgb.Mark) that says whose pause it is and which one, so that any member can end a pause, and nobody ends a later one by mistake.
//
// # A lease ends
//
// No PAUSE is sent before a keeper runs ([Keep]): a process of its own that resumes when the lease is over and nobody has. The pauser
// extends the lease while it works; when it ends, or is killed, the last lease counts. The keeper also ends the pause of a handover that is
// done except for that, because the worker of the new primary was killed (successor.go), and starts the worker where Patroni calls nobody
// after a restart. It finds poolers that have moved meanwhile (keeper_poolers.go).
//
// A keeper can be killed, or end with its container. The lease's file in the state directory has a lock of the kernel for as long as its
// keeper lives; [TakeUp] starts another keeper where that is gone. It knows the leases of its own member. On the primary, a [Reconciler]
// ends pauses of which nobody knows the lease any more.
//
// # Without a state directory
//
// The keeper ends its lease as well. Missing then are what needs the file: another keeper in place of one that was killed, the lease in the
// status, and the word of whoever has resumed a pooler whose console does not answer.
package pause
