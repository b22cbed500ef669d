package plan

import "fmt"

// Settled reports whether a member is as it was before its restart, so that the next step may come: up, streaming, with its replay within
// limit, and with as many synchronous standbys as there were; where not, waits is what for, as the end of a sentence. The replay of one
// that was beyond the limit before, or that is delayed on purpose (ApplyDelay), is not waited for. In synchronous mode Patroni may have
// taken another member for it, and that is as good.
//
// Without a limit a replica has to have replayed to within that of [DefaultLimit].
func Settled(before, now View, name string, limit Limit) (ok bool, waits string) {
	m, known := now.Member(name)
	was, _ := before.Member(name)
	leader, led := now.Leader()
	if limit == (Limit{}) {
		limit = DefaultLimit()
	}
	switch {
	case !known:
		return false, name + " is back in the cluster"
	case !led:
		return false, "somebody is primary"
	case !m.Reachable || !m.Up():
		return false, name + " is up: it " + m.absent()
	case m.Leader():
		return true, ""
	case m.Timeline != leader.Timeline && m.Timeline != 0 && leader.Timeline != 0:
		return false, fmt.Sprintf("%s is on timeline %d", name, leader.Timeline)
	case !m.Streaming() || !m.Receive.Known:
		return false, name + " streams"
	}
	waited := m.ApplyDelay == 0 && (was.Leader() || limit.exceeds(was) == "")
	if over := limit.exceeds(m); waited && over != "" {
		return false, name + " has replayed: it " + over
	}
	if wanted, have := before.synchronous(), now.synchronous(); now.Sync != SyncOff && have < wanted {
		return false, fmt.Sprintf("%d of %d synchronous standbys are there", have, wanted)
	}
	return true, ""
}

func (v View) synchronous() int {
	n := 0
	for _, m := range v.Members {
		if m.Synchronous() {
			n++
		}
	}
	return n
}
