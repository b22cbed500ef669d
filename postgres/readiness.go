package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// StandbyParameters are the settings that must not be smaller on a standby than on its primary: it would not start, or, where the primary's
// was raised while it runs, pause its replay (PostgreSQL 14 to 18, "Administrator's Overview" of hot standby).
func StandbyParameters() []string {
	return []string{"max_connections", "max_prepared_transactions", "max_locks_per_transaction", "max_worker_processes", "max_wal_senders"}
}

// Readiness is what a server tells about how a handover would go with it.
type Readiness struct {
	Identity
	ReplayPaused bool           // in recovery: pg_wal_replay_pause(), or a parameter that is too small
	ReplayLag    int64          // in recovery: bytes that it has received and not replayed; -1: not known
	Parameters   map[string]int // of StandbyParameters

	Archiving     bool          // archive_mode is on, and this server archives
	ArchiveFailed string        // the last WAL file that could not be archived, where nothing was archived since; else ""
	ArchiveReady  int           // WAL files that wait to be archived; -1: this user may not ask (it needs pg_monitor)
	Prepared      []Prepared    // two-phase transactions, the oldest first; 20 at most
	NotArchived   time.Duration // with ArchiveFailed: since the last file was archived, or else since the server was started
}

// Prepared is a prepared transaction.
type Prepared struct {
	GID, Database, Owner string
	Age                  time.Duration
}

const readiness = `select
 case when pg_is_in_recovery() then pg_is_wal_replay_paused() else false end,
 case when pg_is_in_recovery() then greatest(0, pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()))::bigint end,
 current_setting('max_connections'), current_setting('max_prepared_transactions'), current_setting('max_locks_per_transaction'),
 current_setting('max_worker_processes'), current_setting('max_wal_senders'),
 current_setting('archive_mode') = 'always' or current_setting('archive_mode') = 'on' and not pg_is_in_recovery();
select case when last_failed_time > coalesce(last_archived_time, '-infinity') then coalesce(last_failed_wal, '') else '' end,
 greatest(0, extract(epoch from clock_timestamp() - coalesce(last_archived_time, pg_postmaster_start_time())) * 1000000)::bigint
from pg_stat_archiver;
select gid, database, owner, greatest(0, extract(epoch from clock_timestamp() - prepared) * 1000000)::bigint
from pg_prepared_xacts order by prepared limit 20;
select count(*) from pg_ls_archive_statusdir() where name like '%.ready'`

// Readiness asks in two round trips. It needs no privilege but that of pg_monitor for [Readiness.ArchiveReady].
func (c *Conn) Readiness(ctx context.Context) (Readiness, error) {
	identity, err := c.Identity(ctx)
	if err != nil {
		return Readiness{}, err
	}
	// What not everybody may call is the last one: it fails the round trip.
	results, err := c.query(ctx, readiness)
	if err != nil && !(code(err) == "42501" && len(results) > 2) {
		return Readiness{}, err
	}
	r := Readiness{Identity: identity, ArchiveReady: -1, Parameters: map[string]int{}}
	all, err := rows(results, 0, 3+len(StandbyParameters()))
	if err != nil || len(all) != 1 {
		return Readiness{}, errors.Join(err, fmt.Errorf("postgres: %d rows, 1 expected", len(all)))
	}
	row := all[0]
	r.ReplayPaused, r.ReplayLag = row.bool(), row.intOr(-1)
	for _, name := range StandbyParameters() {
		r.Parameters[name] = int(row.int())
	}
	r.Archiving = row.bool()
	if row.err != nil {
		return Readiness{}, row.err
	}
	archiver, err := rows(results, 1, 2)
	if err != nil {
		return Readiness{}, err
	}
	if len(archiver) == 1 && r.Archiving {
		r.ArchiveFailed = archiver[0].shown()
		if since := time.Duration(archiver[0].int()) * time.Microsecond; r.ArchiveFailed != "" {
			r.NotArchived = since
		}
	}
	prepared, err := rows(results, 2, 4)
	if err != nil {
		return Readiness{}, err
	}
	for _, p := range prepared {
		r.Prepared = append(r.Prepared, Prepared{GID: p.shown(), Database: p.shown(), Owner: p.shown(),
			Age: time.Duration(p.int()) * time.Microsecond})
	}
	if waiting, err := rows(results, 3, 1); err == nil && len(waiting) == 1 {
		r.ArchiveReady = int(waiting[0].int())
	}
	return r, nil
}
