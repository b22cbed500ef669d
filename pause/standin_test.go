package pause

import (
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
)

// The server is back as primary: the keeper starts the worker where none runs. One that the guard or a callback has started may wait for
// the route for long.
func TestKeeperLeavesTheWorkToTheWorker(t *testing.T) {
	t.Parallel()
	m := membertest.New(t, membertest.SharedPostgres(t))
	k := newKeeper(m, lease{Owner: pgb.Guard, Since: time.Now().Add(-time.Hour)})
	worker, err := m.StateDir().TryLock(member.WorkerLock)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		k.standIn(t.Context())
	}
	if k.stoodIn {
		t.Error("a second worker was started beside the one that runs")
	}
	worker.Release()
	if k.standIn(t.Context()); !k.stoodIn {
		t.Error("no worker runs, and none was started")
	}
}
