package httpapi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/pause"

	"github.com/pgbaton/pgbaton/config"
)

type rounds chan []pause.Reconciled

func (r rounds) Round(ctx context.Context) ([]pause.Reconciled, error) {
	select {
	case done := <-r:
		return done, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestReconcile(t *testing.T) {
	r := make(rounds, 1)
	r <- []pause.Reconciled{{Pooler: "p:6432", Done: "resumed"}}
	a := start(t, &fake{}, func(_ *config.Config, o *Options) { o.Reconciler = r })
	eventually(t, "it is counted", func() bool {
		return value(string(a.do("GET", "/metrics", "").body), `pgbaton_reconciled_total{done="resumed"}`) == "1"
	})
	wait, last := reconcileInterval, ""
	for range 10 {
		wait, last = a.server.reconciled(wait, last, fmt.Errorf("%w: no answer", pause.ErrRoleUnknown))
	}
	if wait != reconcileLongest || !strings.HasSuffix(last, "no answer") {
		t.Errorf("%s %s", wait, last)
	}
	if wait, _ = a.server.reconciled(wait, last, errors.New("one pooler is down")); wait != reconcileInterval {
		t.Errorf("one pooler that is down: %s", wait)
	}
	if wait, _ = a.server.reconciled(wait, last, nil); wait != reconcileInterval {
		t.Errorf("%s", wait)
	}
	if d := jitter(time.Second); d < 900*time.Millisecond || d > 1100*time.Millisecond {
		t.Errorf("%s", d)
	}
}
