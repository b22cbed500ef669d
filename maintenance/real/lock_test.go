package real_test

import (
	"maps"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/e2e/lab"
	"github.com/pgbaton/pgbaton/maintenance"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
)

// runs are the entries in Patroni's configuration.
func (c *cluster) runs() map[string]any {
	c.t.Helper()
	client, err := c.on(c.Members()[0].Name).Patroni()
	if err != nil {
		c.t.Fatal(err)
	}
	// A PATCH that changes something is answered from the DCS.
	all, err := client.PatchConfig(c.t.Context(), map[string]any{"asked_at": time.Now().UnixNano()})
	if err != nil {
		c.t.Fatal(err)
	}
	maps.DeleteFunc(all, func(key string, _ any) bool { return !strings.HasPrefix(key, "pgbaton") })
	return all
}

// twoAtOnce starts a run on every member at the same moment: never are two at work, and whoever has lost says who has won.
func twoAtOnce(c *cluster) {
	const rounds = 5
	won := 0
	for range rounds {
		before := c.view().primary()
		var all sync.WaitGroup
		reports := make([]api.ClusterReport, len(c.Members()))
		for i, m := range c.Members() {
			here := c.on(m.Name)
			all.Go(func() {
				reports[i] = maintenance.Run(c.t.Context(), here, maintenance.Request{Kind: api.KindSwitchover}, nil)
			})
		}
		all.Wait()
		finished := 0
		for _, r := range reports {
			say(c.t, r)
			switch {
			case r.Code == member.Done:
				finished++
			case r.Code != member.Refused || r.Refusal != maintenance.RefusedLocked:
				c.t.Errorf("%+v", r)
			}
		}
		after := c.view().primary()
		if finished > 1 || after.Timeline != before.Timeline+finished {
			c.t.Errorf("%d runs, timeline %d → %d", finished, before.Timeline, after.Timeline)
		}
		won += finished
	}
	c.t.Logf("%d of %d rounds had a winner", won, rounds)
	if won == 0 {
		c.t.Error("nobody ever had the lock")
	}
}

// lockCost: an entry costs every member a line or two in Patroni's log; no server is reloaded.
func lockCost(c *cluster) {
	loaded := func(m *lab.Member) string {
		rows, err := m.SQL(c.t.Context(), "select pg_conf_load_time()::text as at")
		if err != nil || len(rows) != 1 {
			c.t.Fatal(rows, err)
		}
		return rows[0]["at"]
	}
	before, logs := map[string]string{}, map[string]int{}
	read := func(m *lab.Member) string {
		text, err := os.ReadFile(m.LogFile("patroni.log"))
		if err != nil {
			c.t.Fatal(err)
		}
		return string(text)
	}
	for _, m := range c.Members() {
		before[m.Name], logs[m.Name] = loaded(m), len(read(m))
	}
	client, err := c.on(c.leader()).Patroni()
	if err != nil {
		c.t.Fatal(err)
	}
	began := time.Now()
	entry := map[string]any{"member": "m1", "kind": api.KindRestart, "renewed": 1}
	if _, err := client.PatchConfig(c.t.Context(), map[string]any{"pgbaton_run_0123456789ab": entry}); err != nil {
		c.t.Fatal(err)
	}
	c.t.Logf("PATCH /config took %s", time.Since(began))
	for _, m := range c.Members() {
		membertest.Eventually(c.t, m.Name+" has the entry", func() bool {
			_, answer, err := m.REST(c.t.Context(), http.MethodGet, "/config", nil)
			return err == nil && strings.Contains(answer, "0123456789ab")
		})
		for _, line := range strings.Split(read(m)[logs[m.Name]:], "\n") {
			if strings.Contains(line, "reload") || strings.Contains(line, "Changed") || strings.Contains(line, "onfig") {
				c.t.Logf("%s: %s", m.Name, line)
			}
		}
		if at := loaded(m); at != before[m.Name] {
			c.t.Errorf("%s has loaded its configuration at %s", m.Name, at)
		}
	}
	// Patroni compares with what it has read last, and refuses (409) until it has read the change before; the lock itself repeats it, too.
	membertest.Eventually(c.t, "the entry is taken out", func() bool {
		_, err := client.PatchConfig(c.t.Context(), map[string]any{"pgbaton_run_0123456789ab": nil})
		return err == nil
	})
}
