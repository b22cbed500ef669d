package routing

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/postgres"
)

// Looks do not wait for one another, and one that decides spares those that have not begun.
func TestAtOnce(t *testing.T) {
	var made atomic.Int32
	var begun sync.WaitGroup
	begun.Add(InARow)
	conns := AtOnce(t.Context(), InARow, 0, func(int) (*postgres.Conn, bool) {
		made.Add(1)
		begun.Done()
		begun.Wait() // which ends only when all of them are at it
		return nil, false
	})
	if len(conns) != InARow || made.Load() != InARow {
		t.Errorf("%d looks, %d connections", made.Load(), len(conns))
	}
	made.Store(0)
	AtOnce(t.Context(), 3, time.Second, func(int) (*postgres.Conn, bool) {
		made.Add(1)
		return nil, true
	})
	if made.Load() != 1 {
		t.Errorf("%d looks after one that decided", made.Load())
	}
}
