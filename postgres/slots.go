package postgres

import "context"

// Slots are a server's replication slots, as far as a handover is concerned.
type Slots struct {
	Max     int           // max_replication_slots
	Logical []LogicalSlot // those that last, by name; 1,000 at most
}

// LogicalSlot is a logical replication slot.
type LogicalSlot struct {
	Name, Database string
	Flushed        int64 // confirmed_flush_lsn in bytes: what the subscriber has, and does not get again
	Failover       bool  // PostgreSQL 17 and later: it is meant to be on the standbys, too
}

const slots = `select current_setting('max_replication_slots');
select slot_name, coalesce(database, ''), coalesce(pg_wal_lsn_diff(confirmed_flush_lsn, '0/0'), 0)::bigint,
 coalesce((to_jsonb(s) ->> 'failover')::boolean, false)
from pg_replication_slots s where slot_type = 'logical' and not temporary order by 1 limit 1000`

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
	logical, err := rows(results, 1, 4)
	if err != nil {
		return Slots{}, err
	}
	for _, r := range logical {
		found.Logical = append(found.Logical, LogicalSlot{Name: r.shown(), Database: r.shown(), Flushed: r.int(), Failover: r.bool()})
		if r.err != nil {
			return Slots{}, r.err
		}
	}
	return found, nil
}
