package httpapi

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/health"
)

// TestStatusThatWasSpoilt: one that was asked for before the end of an operation, and comes after it, is not shown.
func TestStatusThatWasSpoilt(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan health.Status)
	c := &statusCache{log: slog.New(slog.DiscardHandler), ask: func(context.Context) health.Status {
		asked <- struct{}{}
		return <-answer
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got := make(chan string, 1)
	get := func() {
		s, _, err := c.get(ctx, time.Hour)
		if err != nil {
			t.Error(err)
		}
		got <- s.Member
	}
	go get()
	<-asked
	c.spoil()
	answer <- health.Status{Status: api.Status{Member: "before"}}
	<-asked
	answer <- health.Status{Status: api.Status{Member: "after"}}
	if member := <-got; member != "after" {
		t.Errorf("shown: %s", member)
	}
	// As good as its age, until the next one.
	go get()
	if member := <-got; member != "after" {
		t.Errorf("shown: %s", member)
	}
	c.spoil()
	go get()
	<-asked
	answer <- health.Status{Status: api.Status{Member: "later"}}
	if member := <-got; member != "later" {
		t.Errorf("shown: %s", member)
	}
}
