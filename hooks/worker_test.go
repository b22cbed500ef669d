package hooks

import (
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
)

// They are resumed by the worker, and not when the lease is over.
func TestWorkerResumesSingleDatabases(t *testing.T) {
	t.Parallel()
	for _, suite := range membertest.Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			b, rt := membertest.Singly(t, suite)
			rt.Config.Resume.Timeout = time.Minute
			if r := Work(t.Context(), rt, Event{Action: "on_role_change", Role: "primary"}, nil); r.Code != member.Done {
				t.Errorf("%d %s", r.Code, r.Decision)
			}
			if !membertest.Usable(t, b, 5*time.Second) {
				t.Error("still paused")
			}
			membertest.PutBack(t, b)
		})
	}
}
