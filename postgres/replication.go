package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Replication is what this server knows of who has its WAL. Positions are bytes since the beginning of the WAL.
type Replication struct {
	Written int64    // as far as this server has written WAL
	Senders []Sender // who gets it now, physically
	Slots   []string // names of the physical replication slots, in use or not
}

// Sender is a walsender of this server that sends WAL as it is: to a standby, or to a program that stores it.
type Sender struct {
	Application string // a Patroni member's name; "pg_basebackup", "pg_receivewal", …
	State       string // "streaming", "catchup", "startup", "backup", "stopping"
	Sync        bool   // commits wait for it
	Flushed     int64  // what it has made durable; -1: it has not said
}

// Replication asks in one round trip. It does not tell logical replication, which takes over for no server. It must not be asked in
// recovery. [ErrHidden]: this user may not see the states (it needs pg_read_all_stats or pg_monitor).
func (c *Conn) Replication(ctx context.Context) (Replication, error) {
	const sql = `select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint;
select coalesce(r.application_name, ''), coalesce(r.state, ''), coalesce(r.sync_state, '') in ('sync', 'quorum'),
 pg_wal_lsn_diff(r.flush_lsn, '0/0')::bigint, not pg_has_role('pg_read_all_stats', 'usage')
from pg_stat_replication r left join pg_replication_slots s on s.active_pid = r.pid
where s.slot_type is distinct from 'logical' order by 1;
select slot_name from pg_replication_slots where slot_type = 'physical' order by 1`
	results, err := c.query(ctx, sql)
	if err != nil {
		return Replication{}, err
	}
	var found Replication
	written, err := rows(results, 0, 1)
	if err != nil || len(written) != 1 {
		return Replication{}, fmt.Errorf("postgres: no WAL position: %w", err)
	}
	found.Written = written[0].int()
	senders, err := rows(results, 1, 5)
	if err != nil {
		return Replication{}, err
	}
	for _, r := range senders {
		s := Sender{Application: r.shown(), State: r.shown(), Sync: r.bool(), Flushed: r.intOr(-1)}
		if r.bool() && s.State == "" {
			return Replication{}, ErrHidden
		}
		if r.err != nil {
			return Replication{}, r.err
		}
		found.Senders = append(found.Senders, s)
	}
	slots, err := rows(results, 2, 1)
	if err != nil {
		return Replication{}, err
	}
	for _, r := range slots {
		found.Slots = append(found.Slots, r.shown())
	}
	return found, written[0].err
}

// CreatePhysicalSlot makes a replication slot for a standby, and reports whether there was none of that name. It reserves no WAL until the
// standby uses it. It needs the attribute REPLICATION.
func (c *Conn) CreatePhysicalSlot(ctx context.Context, name string) (made bool, err error) {
	quoted := "'" + strings.ReplaceAll(name, "'", "''") + "'"
	results, err := c.query(ctx, "select pg_create_physical_replication_slot("+quoted+
		") where not exists (select from pg_replication_slots where slot_name = "+quoted+")")
	return err == nil && len(results[0].Rows) > 0, err
}

// ApplyDelay is recovery_min_apply_delay: how much later than its primary a standby replays on purpose; 0 where it is not set, and before
// PostgreSQL 12, where it is no setting. Everybody may ask. It blocks until the server has answered or the context ends.
func (c *Conn) ApplyDelay(ctx context.Context) (time.Duration, error) {
	results, err := c.query(ctx, "select setting::bigint from pg_settings where name = 'recovery_min_apply_delay'") // in ms
	if err != nil {
		return 0, err
	}
	all, err := rows(results, 0, 1)
	if err != nil || len(all) == 0 {
		return 0, err
	}
	return time.Duration(all[0].int()) * time.Millisecond, all[0].err
}
