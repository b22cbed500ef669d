package health

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member/membertest"
)

// TestPoolerThatEnds: a PgBouncer that waits for its clients to go takes no connection and no PAUSE, and is told from one that is not there.
func TestPoolerThatEnds(t *testing.T) {
	t.Parallel()
	b := membertest.StartPooler(t, single.SuiteTrixie, membertest.SharedPostgres(t))
	m := membertest.New(t, nil, b)
	m.Config.Poolers[0].Pidfile = b.Pidfile
	told := func(id string) bool {
		return slices.ContainsFunc(Of(t.Context(), m).Problems, func(p string) bool { return strings.HasSuffix(p, "["+id+"]") })
	}
	if told("pooler-shutting-down") || told("pooler-unreachable") {
		t.Error("it runs")
	}
	membertest.OpenTransaction(t, b)
	if err := syscall.Kill(b.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	membertest.Eventually(t, "its end is seen", func() bool { return told("pooler-shutting-down") })
	b.Kill()
	if !told("pooler-unreachable") || told("pooler-shutting-down") {
		t.Error("it is gone")
	}
}
