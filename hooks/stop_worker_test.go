package hooks

import (
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
)

func TestStopWorkerSparesOthers(t *testing.T) {
	rt := membertest.New(t, nil)
	held, err := rt.StateDir().TryLock(member.WorkerLock) // by this process, which is none
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release()
	began := time.Now()
	stopWorker(rt)
	if took := time.Since(began); took > 900*time.Millisecond {
		t.Errorf("took %s", took)
	}
}
