package hooks

import (
	"testing"
	"time"
)

// They are resumed by the worker, and not when the lease is over.
func TestWorkerResumesSingleDatabases(t *testing.T) {
	t.Parallel()
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			b, rt := singly(t, suite)
			rt.Config.Resume.Timeout = time.Minute
			if r := Work(t.Context(), rt, Event{Action: "on_role_change", Role: "primary"}, nil); r.Code != Done {
				t.Errorf("%d %s", r.Code, r.Decision)
			}
			if !usable(t, b, 5*time.Second) {
				t.Error("still paused")
			}
			putBack(t, b)
		})
	}
}
