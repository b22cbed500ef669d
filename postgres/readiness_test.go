package postgres_test

import (
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/postgres"
)

func TestReadiness(t *testing.T) {
	suites(t, func(t *testing.T, suite string) {
		pg := start(t, suite, single.PostgresOptions{Settings: map[string]string{"max_prepared_transactions": "7", "wal_level": "logical",
			"max_replication_slots": "11", "archive_mode": "on",
			"archive_command": "false"}})
		ctx := testContext(t)
		c := connect(t, pg.SocketDSN("postgres", "postgres"))
		look := func() postgres.Readiness {
			t.Helper()
			r, err := c.Readiness(ctx)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		if r := look(); r.InRecovery || r.ReplayPaused || r.ReplayLag != -1 || !r.Archiving || len(r.Prepared) != 0 || r.ArchiveReady < 0 ||
			r.Parameters["max_prepared_transactions"] != 7 || r.Parameters["max_connections"] != 60 || r.SystemID == "" {
			t.Errorf("a primary is %+v", r)
		}
		// Before the prepared transaction, for whose end it would wait.
		if err := pg.Exec(ctx, "select pg_create_logical_replication_slot('sub', 'pgoutput')"); err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{"create table t (i int)", "begin; insert into t values (1); prepare transaction 'of the test'",
			"create role weak login", "select pg_switch_wal()"} {
			if err := pg.Exec(ctx, sql); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "the archiver has failed", func() bool { return look().ArchiveFailed != "" })
		r := look()
		if r.ArchiveReady < 1 || r.NotArchived <= 0 || len(r.Prepared) != 1 || r.Prepared[0].GID != "of the test" ||
			r.Prepared[0].Owner != "postgres" || r.Prepared[0].Age <= 0 {
			t.Errorf("%+v", r)
		}
		weak, err := connect(t, pg.SocketDSN("weak", "postgres")).Readiness(ctx)
		if err != nil || weak.ArchiveReady != -1 || weak.ArchiveFailed != r.ArchiveFailed || len(weak.Prepared) != 1 {
			t.Errorf("a user without privileges sees %+v, %v", weak, err)
		}

		slots, err := c.Slots(ctx)
		if err != nil || slots.Max != 11 || len(slots.Logical) != 1 || slots.Logical[0].Name != "sub" ||
			slots.Logical[0].Database != "postgres" || slots.Logical[0].Flushed <= 0 || slots.Logical[0].Failover ||
			slots.Logical[0].Synced || slots.Logical[0].Needs == 0 || slots.Receiver != "" {
			t.Errorf("%+v, %v", slots, err)
		}
		if slots, err := connect(t, pg.SocketDSN("weak", "postgres")).Slots(ctx); err != nil || len(slots.Logical) != 1 {
			t.Errorf("a user without privileges sees %+v, %v", slots, err)
		}

		if delay, err := c.ApplyDelay(ctx); err != nil || delay != 0 {
			t.Errorf("%s, %v", delay, err)
		}
		if err := pg.Exec(ctx, "alter system set recovery_min_apply_delay = '90s'"); err != nil {
			t.Fatal(err)
		}
		if err := pg.Exec(ctx, "select pg_reload_conf()"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the delay is set", func() bool {
			delay, err := c.ApplyDelay(ctx)
			return err == nil && delay == 90*time.Second
		})
		if err := pg.Exec(ctx, "alter system reset recovery_min_apply_delay"); err != nil {
			t.Fatal(err)
		}

		standby, err := single.StartStandby(ctx, pg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(standby.Close)
		s := connect(t, standby.SocketDSN("postgres", "postgres"))
		if r, err := s.Readiness(ctx); err != nil || !r.InRecovery || r.ReplayPaused || r.Archiving || r.ReplayLag < 0 ||
			r.Parameters["max_connections"] != 60 {
			t.Errorf("a standby is %+v, %v", r, err)
		}
		if slots, err := s.Slots(ctx); err != nil || slots.Max != 11 || len(slots.Logical) != 0 {
			t.Errorf("a standby has %+v, %v", slots, err)
		}
		if err := standby.Exec(ctx, "select pg_wal_replay_pause()"); err != nil {
			t.Fatal(err)
		}
		if err := pg.Exec(ctx, "insert into t select generate_series(1, 1000)"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the paused standby lags behind", func() bool {
			r, err := s.Readiness(ctx)
			return err == nil && r.ReplayPaused && r.ReplayLag > 0
		})
	})
}
