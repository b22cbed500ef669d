package lab

import (
	"context"
	"testing"
	"time"
)

func TestLab(t *testing.T) {
	for _, suite := range []string{"trixie", "sid"} {
		t.Run(suite, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			begin := time.Now()
			l, err := Start(ctx, Options{Suite: suite, Logf: t.Logf}.Quick())
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}()
			t.Logf("start: %v", time.Since(begin))
			h, err := l.Switchover(ctx, "m2")
			t.Logf("%+v %v", h, err)
			t.Log(l.WaitHealthy(ctx), time.Since(begin))
		})
	}
}
