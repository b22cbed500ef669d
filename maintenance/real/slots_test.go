package real_test

import (
	"errors"
	"net/http"
	"strings"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/maintenance"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/plan"
)

// logicalSlot: a slot that is meant to be on the standbys and is not keeps all of them from becoming primary, and so does one of Patroni's
// until it has made its copies.
func logicalSlot(c *cluster) {
	leader := c.leader()
	m := c.on(leader)
	refused := func() (found string) {
		_, err := maintenance.Plan(c.t.Context(), m, maintenance.Request{Kind: api.KindSwitchover,
			Switchover: plan.SwitchoverOptions{IfLagging: plan.PolicyRefuse}})
		var refusal *plan.Refusal
		switch {
		case errors.As(err, &refusal) && refusal.ID == plan.ReplicaLagging:
			return refusal.Found
		case err != nil:
			c.t.Error(err)
		}
		return ""
	}
	sql := func(text string) {
		c.t.Helper()
		if _, err := c.Member(leader).SQL(c.t.Context(), text); err != nil {
			c.t.Fatal(err)
		}
	}
	// Nothing synchronizes it: that takes sync_replication_slots.
	sql("select pg_create_logical_replication_slot('failover_slot', 'pgoutput', false, false, true)")
	if found := refused(); !strings.Contains(found, "waits for logical slots to catch up: failover_slot") {
		c.t.Errorf("nobody has the slot: %q", found)
	}
	sql("select pg_drop_replication_slot('failover_slot')")
	if found := refused(); found != "" {
		c.t.Errorf("no slot is left: %s", found)
	}
	slots := func(kept any) {
		_, answer, err := c.Member(leader).REST(c.t.Context(), http.MethodPatch, "/config", map[string]any{"slots": kept})
		if err != nil {
			c.t.Fatal(answer, err)
		}
	}
	slots(map[string]any{"sub": map[string]any{"type": "logical", "database": "postgres", "plugin": "pgoutput"}})
	membertest.Eventually(c.t, "Patroni has made the slot and its copies", func() bool {
		for _, one := range c.Members() {
			rows, err := one.SQL(c.t.Context(), "select from pg_replication_slots where slot_name = 'sub'")
			if err != nil || len(rows) == 0 {
				return false
			}
		}
		return refused() == ""
	})
	slots(nil)
	membertest.Eventually(c.t, "Patroni has dropped them", func() bool {
		rows, err := c.Member(leader).SQL(c.t.Context(), "select from pg_replication_slots where slot_name = 'sub'")
		return err == nil && len(rows) == 0
	})
}
