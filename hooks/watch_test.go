package hooks

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/patroni"
)

// A guard that hangs beyond its time is ended, and the log says so before that.
func TestBeforeStopLastResort(t *testing.T) {
	t.Parallel()
	m := membertest.New(t, nil)
	var lines bytes.Buffer
	m.Log = slog.New(slog.NewTextHandler(&lines, nil))
	type ended struct {
		code int
		said string
	}
	exited := make(chan ended, 1)
	g := newGuard(m, func(code int) { exited <- ended{code, lines.String()} })
	g.update(func(v *view) { // the lock may expire in half a second
		seen := time.Now().Add(500*time.Millisecond - patroni.MinTTL)
		v.local, v.answered = rolePrimary, true
		v.health = patroni.Health{HasLock: true, State: "stopping", Role: "primary", DCSLastSeen: seen}
	})
	stop := g.lastResort(t.Context())
	defer stop()
	select {
	case end := <-exited:
		if end.code != member.BudgetSpent || !strings.Contains(end.said, "the guard hangs and is ended") {
			t.Errorf("code %d, log %q", end.code, end.said)
		}
	case <-time.After(3 * time.Second):
		t.Fatal("it goes on")
	}
}
