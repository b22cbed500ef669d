package httpapi

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member/membertest"
)

// TestKilledInARun: a real serve is killed in the middle of a rolling restart. The next one knows of the run, starts nothing by itself, and
// goes on with it when it is asked to: no order is given twice.
func TestKilledInARun(t *testing.T) {
	single.Need(t) // builds the program
	cluster := membertest.NewCluster(t)
	let := make(chan struct{})
	cluster.Order = func(w http.ResponseWriter, name, path string) {
		if path == "/switchover" {
			cluster.Change(func() { cluster.Leader, cluster.Timeline, cluster.Started["m1"] = "m2", cluster.Timeline+1, time.Now() })
			membertest.Say(w, http.StatusOK, "Successfully switched over to \"m2\"")
			return
		}
		<-let
		cluster.Change(func() { cluster.Started[name] = time.Now() })
		membertest.Say(w, http.StatusOK, "restarted successfully")
	}
	program, dir := buildProgram(t), t.TempDir()
	writeText(t, dir+"/tokens", "operator operate "+operateToken+"\n")
	writeText(t, dir+"/pgbaton.yaml", "patroni: {url: \""+cluster.Servers["m1"].URL+"\"}\npostgres: host="+dir+" user=postgres\n"+
		"serve: {tokens_file: tokens, grace: 2s}\nstate_dir: "+dir+"/state\n")
	log := filepath.Join(dir, "log")
	c := serveChild(t, program, dir+"/pgbaton.yaml", log)
	const body = `{"rolling": true, "skipChecks": true}`
	o := c.expect(c.do("POST", "/v1/cluster/restart", body, "Idempotency-Key: once"), 202, "").operation(t)
	membertest.Eventually(t, "the first restart is ordered", func() bool { return len(cluster.Orders()) == 1 })
	c.kill(syscall.SIGKILL)
	close(let) // Patroni does what it was asked to

	c = serveChild(t, program, dir+"/pgbaton.yaml", log)
	if again := c.do("POST", "/v1/cluster/restart", body, "Idempotency-Key: once").operation(t); again.ID != o.ID {
		t.Fatalf("the key is forgotten: %+v", again)
	}
	o = c.until(o.ID, api.Unknown)
	eventually(t, "it says where the run was cut off", func() bool {
		o = c.do("GET", o.Path(), "").operation(t)
		return strings.Contains(fmt.Sprint(o.Steps), "was cut off in step 1 (restart m2, running)")
	})
	if orders := cluster.Orders(); !slices.Equal(orders, []string{"m2/restart"}) {
		t.Errorf("a new serve has gone on by itself: %v", orders)
	}
	resumed := c.expect(c.do("POST", "/v1/cluster/restart", `{"resume": true}`), 202, "").operation(t)
	resumed = c.until(resumed.ID, api.Succeeded)
	if r := resumed.Result; r == nil || r.Cluster == nil || r.Cluster.After.Primary != "m2" || len(r.Cluster.Steps) != 2 {
		t.Errorf("%+v", resumed)
	}
	if orders := cluster.Orders(); !slices.Equal(orders, []string{"m2/restart", "m1/switchover"}) {
		t.Errorf("orders: %v", orders)
	}
	if o = c.until(o.ID, api.Succeeded); o.Result.Cluster.Run != resumed.Result.Cluster.Run {
		t.Errorf("%+v", o)
	}
}
