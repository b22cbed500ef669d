package health

import (
	"slices"
	"strings"

	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/postgres"
)

// judgeSlots is about what a standby lacks of the primary's replication slots.
func judgeSlots(f *findings, v view, name string, primary, standby serverView) {
	if theirs, ours := standby.slots.Max, primary.slots.Max; theirs < ours {
		f.add("slots-differ", name, "set the same max_replication_slots for all members (patronictl edit-config), and restart this member",
			"member %s: max_replication_slots is %d, and %d on the primary", name, theirs, ours)
	}
	if v.neverLeads(name) {
		return
	}
	var missing, behind []string
	for _, slot := range primary.slots.Logical {
		if !slot.Failover && !v.dynamic.PermanentLogical(slot.Name) {
			continue // it is meant to be on this primary only
		}
		i := slices.IndexFunc(standby.slots.Logical, func(s postgres.LogicalSlot) bool { return s.Name == slot.Name })
		switch {
		case i < 0:
			missing = append(missing, slot.Name)
		case slot.Flushed-standby.slots.Logical[i].Flushed > lagLimit:
			behind = append(behind, slot.Name)
		}
	}
	if len(missing) > 0 {
		f.add("logical-slot", name, "wait until Patroni, or PostgreSQL's own synchronization, has made it there: its log has why it does "+
			"not; or name another candidate", "member %s has no copy of the logical slots %s", name, strings.Join(missing, ", "))
	}
	if len(behind) > 0 {
		f.add("logical-slot", name, "wait until it has caught up, or name another candidate",
			"member %s: its copies of the logical slots %s are more than %d MiB behind the primary's", name, strings.Join(behind, ", "),
			lagLimit>>20)
	}
}

// neverLeads reports whether a member has a tag by which it is no candidate.
func (v view) neverLeads(name string) bool {
	if v.further.cluster == nil {
		return false
	}
	i := slices.IndexFunc(v.further.cluster.Members, func(m patroni.Member) bool { return m.Name == name })
	return i >= 0 && noFailover(v.further.cluster.Members[i])
}

func noFailover(m patroni.Member) bool {
	priority, hasPriority := m.Tags["failover_priority"].(float64)
	never, _ := m.Tags["nofailover"].(bool)
	return never || hasPriority && priority <= 0
}
