package e2e_test

import (
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// TestRestartInPlace: Patroni calls on_restart when it next looks, up to a second after the server is back. The worker that the guard has
// started does not wait for that. With Patroni's default times.
func TestRestartInPlace(t *testing.T) {
	eachSuite(t, func(t *testing.T, suite string) {
		c := start(t, lab.Options{Suite: suite})
		stalls, result := c.handovers(10, func() { c.must(c.leader().RestartPostgres(c.ctx)) })
		c.noErrors(result)
		c.asBefore()
		t.Logf("restart in place: stalls %v", stalls)
		if worst := stalls[len(stalls)-1]; worst > 500*time.Millisecond {
			t.Errorf("the longest of %d stalls is %s, at most 0.5 s is claimed", len(stalls), worst)
		}
	})
}
