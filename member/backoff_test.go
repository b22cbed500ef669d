package member

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestJittered(t *testing.T) {
	want := []time.Duration{20, 40, 80, 160, 320, 640, 1000, 1000, 1000}
	for i, ms := range want {
		base := ms * time.Millisecond
		seen := map[time.Duration]bool{}
		for range 200 {
			d := jittered(uint(i+1), nil, nil) // retry-go counts from 1
			if d < base-base/10 || d > base+base/10 {
				t.Fatalf("delay %d is %s, want %s ± 10 %%", i+1, d, base)
			}
			seen[d] = true
		}
		if len(seen) < 10 {
			t.Errorf("delay %d has %d values only", i+1, len(seen))
		}
	}
	for _, n := range []uint{0, 63, 64, 65, 1 << 40} {
		if d := jittered(n, nil, nil); d < 900*time.Millisecond || d > 1100*time.Millisecond {
			t.Errorf("delay %d is %s", n, d)
		}
	}
}

func TestPersistently(t *testing.T) {
	ctx := t.Context()
	bad := errors.New("bad")
	t.Run("until it succeeds", func(t *testing.T) {
		n := 0
		err := Retry(ctx, func() error {
			if n++; n < 3 {
				return bad
			}
			return nil
		}, nil)
		if err != nil || n != 3 {
			t.Errorf("%v after %d calls", err, n)
		}
	})
	t.Run("the last error at the context's end", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		n := 0
		err := Retry(ctx, func() error {
			if n++; n == 2 {
				cancel()
			}
			return bad
		}, nil)
		if !errors.Is(err, bad) || errors.Is(err, context.Canceled) || n != 2 {
			t.Errorf("%v after %d calls", err, n)
		}
	})
	t.Run("a context that is over", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		err := Retry(ctx, func() error { t.Error("called"); return nil }, nil)
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Run("gives up", func(t *testing.T) {
		n := 0
		hopeless := errors.New("hopeless")
		err := Retry(ctx, func() error {
			if n++; n == 2 {
				return hopeless
			}
			return bad
		}, func(err error) bool { return errors.Is(err, hopeless) })
		if !errors.Is(err, hopeless) || n != 2 {
			t.Errorf("%v after %d calls", err, n)
		}
	})
}

// What clients wait for is looked for often at first, and seen 5 % after it at the latest.
func TestPace(t *testing.T) {
	for waited, want := range map[time.Duration]time.Duration{0: 50, 400 * time.Millisecond: 50, time.Second: 50, 4 * time.Second: 200,
		5 * time.Second: 250, time.Hour: 250} {
		if got := Pace(waited); got != want*time.Millisecond {
			t.Errorf("after %s: %s, want %d ms", waited, got, want)
		}
	}
	looks, waited := 0, time.Duration(0)
	for ; waited < 20*time.Second; looks++ {
		waited += Pace(waited)
	}
	if looks > 150 {
		t.Errorf("%d looks in 20 s", looks)
	}
}
