package routing

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/postgres"
)

// Looks do not wait for one another, and one that decides spares those that have not begun.
func TestAtOnce(t *testing.T) {
	var open, most, made atomic.Int32
	look := func(enough bool) func(int) (*postgres.Conn, bool) {
		return func(int) (*postgres.Conn, bool) {
			made.Add(1)
			if n := open.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(200 * time.Millisecond)
			open.Add(-1)
			return nil, enough
		}
	}
	if conns := AtOnce(t.Context(), InARow, 0, look(false)); len(conns) != InARow || made.Load() != InARow || most.Load() < 2 {
		t.Errorf("%d looks, %d at once, %d connections", made.Load(), most.Load(), len(conns))
	}
	made.Store(0)
	AtOnce(t.Context(), 3, time.Second, look(true))
	if made.Load() != 1 {
		t.Errorf("%d looks after one that decided", made.Load())
	}
}
