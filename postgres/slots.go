package postgres

import (
	"context"
	"slices"
)

// Slots are a server's replication slots, as far as a handover is concerned.
type Slots struct {
	Max     int           // max_replication_slots
	Logical []LogicalSlot // those that last, by name; 1,000 at most
	// Held is the oldest transaction whose rows of the catalog are kept for the standby of each physical slot (hot_standby_feedback), as
	// its own logical slots need them; 0: none are. 1,000 slots at most.
	Held map[string]uint32
	// Receiver is the physical slot that a standby streams by; "" where there is none, or the user may not see it.
	Receiver string
}

// LogicalSlot is a logical replication slot.
type LogicalSlot struct {
	Name, Database string
	Flushed        int64 // confirmed_flush_lsn in bytes: what the subscriber has, and does not get again
	Failover       bool  // PostgreSQL 17 and later: it is meant to be on the standbys, too
	Synced         bool  // PostgreSQL 17 and later: the server keeps this copy itself, and it is ready
	// Needs is the oldest transaction that it needs of the catalog; 0: not known.
	Needs uint32
}

const slots = `select current_setting('max_replication_slots');
select slot_name, coalesce(database, ''), coalesce(pg_wal_lsn_diff(confirmed_flush_lsn, '0/0'), 0)::bigint,
 coalesce((to_jsonb(s) ->> 'failover')::boolean, false), coalesce((to_jsonb(s) ->> 'synced')::boolean, false),
 coalesce(catalog_xmin::text::bigint, 0)
from pg_replication_slots s where slot_type = 'logical' and not temporary order by 1 limit 1000;
select slot_name, coalesce(catalog_xmin::text::bigint, 0) from pg_replication_slots where slot_type = 'physical' order by 1 limit 1000;
select coalesce(slot_name, '') from pg_stat_wal_receiver limit 1`

// Slots asks for them in one round trip. Everybody may. It blocks until the server has answered or the context ends.
func (c *Conn) Slots(ctx context.Context) (Slots, error) {
	results, err := c.query(ctx, slots)
	if err != nil {
		return Slots{}, err
	}
	one, err := rows(results, 0, 1)
	if err != nil {
		return Slots{}, err
	}
	var found Slots
	for _, r := range one {
		found.Max = int(r.int())
		err = r.err
	}
	if err != nil {
		return Slots{}, err
	}
	logical, err := rows(results, 1, 6)
	if err != nil {
		return Slots{}, err
	}
	for _, r := range logical {
		found.Logical = append(found.Logical, LogicalSlot{Name: r.shown(), Database: r.shown(), Flushed: r.int(), Failover: r.bool(),
			Synced: r.bool(), Needs: uint32(r.int())})
		if r.err != nil {
			return Slots{}, r.err
		}
	}
	held, err := rows(results, 2, 2)
	if err != nil {
		return Slots{}, err
	}
	for _, r := range held {
		if found.Held == nil {
			found.Held = map[string]uint32{}
		}
		found.Held[r.shown()] = uint32(r.int())
		if r.err != nil {
			return Slots{}, r.err
		}
	}
	receiver, err := rows(results, 3, 1)
	if err != nil {
		return Slots{}, err
	}
	for _, r := range receiver {
		found.Receiver = r.shown()
	}
	return found, nil
}

// NotReady names the logical slots of a primary that a standby should have, by kept, and that a promotion of it would lose, or spoil: there
// is no copy, or the catalog that the copy needs is not kept for it on the primary, which may have removed a part of it. That is the
// condition by which Patroni calls a copy safe (slots.py, _ready_logical_slots, 4.0.7 and 4.1.5), as far as it can be seen: Patroni also
// waits until a new copy has passed what the primary's slot needed when it was made, and tells its log alone.
//
// The copies of a standby that streams from another one than the primary, or by no slot that can be seen, are only looked for.
func NotReady(primary, standby Slots, kept func(LogicalSlot) bool) []string {
	held, streams := primary.Held[standby.Receiver]
	var names []string
	for _, slot := range primary.Logical {
		if !kept(slot) {
			continue
		}
		i := slices.IndexFunc(standby.Logical, func(s LogicalSlot) bool { return s.Name == slot.Name })
		switch {
		case i < 0:
			names = append(names, slot.Name)
		case standby.Logical[i].Synced || !streams:
		case held == 0 || older(standby.Logical[i].Needs, held):
			names = append(names, slot.Name)
		}
	}
	return names
}

// older compares ids of transactions as PostgreSQL does (TransactionIdPrecedes): they go round in 32 bits.
func older(a, b uint32) bool { return int32(a-b) < 0 }
