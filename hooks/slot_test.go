package hooks

import (
	"context"
	"fmt"
	"testing"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/postgres"
)

func TestSlotOnLeader(t *testing.T) {
	t.Parallel()
	leader := patroni.Member{Name: "a", Role: "leader", Host: "10.0.0.1", Port: 5432}
	me := patroni.Member{Name: "b-2", Role: "replica"}
	tagged := func(tags map[string]any) patroni.Member {
		m := me
		m.Tags = tags
		return m
	}
	for name, c := range map[string]struct {
		members []patroni.Member
		self    string
		slot    string
	}{
		"a standby":                       {[]patroni.Member{leader, me}, "b-2", "b_2"},
		"the leader itself":               {[]patroni.Member{leader, me}, "a", ""},
		"no leader":                       {[]patroni.Member{me}, "b-2", ""},
		"not in the cluster yet":          {[]patroni.Member{leader}, "b-2", ""},
		"a standby leader":                {[]patroni.Member{{Name: "a", Role: "standby_leader", Host: "a", Port: 5432}, me}, "b-2", ""},
		"no address of the leader":        {[]patroni.Member{{Name: "a", Role: "leader"}, me}, "b-2", ""},
		"it does not stream":              {[]patroni.Member{leader, tagged(map[string]any{"nostream": true})}, "b-2", ""},
		"it streams from another standby": {[]patroni.Member{leader, tagged(map[string]any{"replicatefrom": "c"}), {Name: "c"}}, "b-2", ""},
		"that one is not there":           {[]patroni.Member{leader, tagged(map[string]any{"replicatefrom": "c"})}, "b-2", "b_2"},
	} {
		slot, at, ok := slotOnLeader(patroni.Cluster{Members: c.members}, c.self)
		if slot != c.slot || ok != (c.slot != "") || ok && at != (postgres.Address{Host: "10.0.0.1", Port: 5432}) {
			t.Errorf("%s: %q at %v, %t", name, slot, at, ok)
		}
	}
}

// The callback of a standby makes its slot on the leader; at any other event, or where it is there, it makes none.
func TestStandbyMakesItsSlot(t *testing.T) {
	t.Parallel()
	pg, _, m, f := guarded(t, "running", func(*config.Pause) {})
	m.Config.Postgres = fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres password=%s", pg.SocketDir, pg.Port, single.Password)
	f.Set(func(f *membertest.Patroni) {
		f.Cluster = fmt.Sprintf(`{"scope": "demo", "members": [{"name": "node1", "role": "replica", "state": "running"},
 {"name": "node2", "role": "leader", "state": "running", "host": %q, "port": %d}]}`, pg.Addr, pg.Port)
	})
	t.Cleanup(func() { // another test gets the server
		_ = pg.Exec(context.Background(), "select pg_drop_replication_slot(slot_name) from pg_replication_slots")
	})
	const one = "select 1 / count(*) from pg_replication_slots where slot_name = 'node1' and slot_type = 'physical' and restart_lsn is null"
	OnRoleChange(t.Context(), m, Event{Action: "on_stop", Role: "replica", Scope: "demo"})
	if pg.Exec(t.Context(), one) == nil {
		t.Error("a slot for a standby that stops")
	}
	for range 2 {
		OnRoleChange(t.Context(), m, Event{Action: "on_start", Role: "replica", Scope: "demo"})
		if err := pg.Exec(t.Context(), one); err != nil {
			t.Errorf("its slot: %v", err)
		}
	}
}
