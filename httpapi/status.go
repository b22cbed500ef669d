package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/health"
)

const (
	statusAge  = time.Second     // of what /v1/status may answer
	metricsAge = 5 * time.Second // of what /metrics may
	statusWait = 5 * time.Second // GetStatus takes 3 s at most
)

// statusCache asks the poolers once for all who want to know at about the same time: clients of this server must not be felt by a handover.
type statusCache struct {
	ask func(context.Context) health.Status
	log *slog.Logger

	mu     sync.Mutex
	status health.Status
	at     time.Time     // it was asked for then
	spoilt time.Time     // what was asked for before is not true any more
	fault  error         // the last one did not come to its end
	flight chan struct{} // closed when the one that is under way is there; nil: none is
}

// get is a status no older than that, and when it was taken. It blocks until there is one, statusWait at most, or the context ends, which
// must be that of all who ask.
func (c *statusCache) get(ctx context.Context, age time.Duration) (health.Status, time.Time, error) {
	for {
		c.mu.Lock()
		if c.good() && time.Since(c.at) < age {
			defer c.mu.Unlock()
			return c.status, c.at, nil
		}
		flight := c.flight
		if flight == nil {
			flight = make(chan struct{})
			c.flight = flight
			go c.fly(ctx, flight)
		}
		c.mu.Unlock()
		select {
		case <-flight:
			// What was asked for by others while we waited is as fresh as it gets.
			c.mu.Lock()
			status, at, fault, good := c.status, c.at, c.fault, c.good()
			c.mu.Unlock()
			if fault != nil {
				return health.Status{}, time.Time{}, fault
			}
			if good {
				return status, at, nil
			}
		case <-ctx.Done():
			return health.Status{}, time.Time{}, ctx.Err()
		}
	}
}

// good reports that there is one that may be shown; with the lock held.
func (c *statusCache) good() bool { return !c.at.IsZero() && !c.at.Before(c.spoilt) }

// spoil has the next one asked for anew: who has waited for an operation's end sees what it has done.
func (c *statusCache) spoil() {
	c.mu.Lock()
	c.spoilt = time.Now()
	c.mu.Unlock()
}

// fly asks, for nobody's request in particular: one who goes away must not spoil it for the others.
func (c *statusCache) fly(ctx context.Context, landed chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, statusWait)
	defer cancel()
	at := time.Now()
	fault := errFault
	defer func() {
		if told := recover(); told != nil {
			c.log.Error("asking for the status panicked", "panic", fmt.Sprint(told), "stack", string(debug.Stack()))
		}
		c.mu.Lock()
		c.flight, c.fault = nil, fault
		c.mu.Unlock()
		close(landed)
	}()
	status := c.ask(ctx)
	fault = nil
	c.mu.Lock()
	c.status, c.at = status, at
	c.mu.Unlock()
}

var errFault = errors.New("the status could not be asked for")

// recheckInterval is how soon a configuration that cannot be used any more is in the log.
const recheckInterval = 10 * time.Second

// recheck loads the configuration again and again until the context ends: a hook reads it only when it is needed, and that is too late to
// find out that it cannot be used. What is wrong is logged once, and shown by the status and the metrics.
func (s *Server) recheck(ctx context.Context) {
	tick := time.NewTicker(recheckInterval)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		text := ""
		if err := s.member.Recheck(); err != nil {
			text = err.Error()
		}
		switch {
		case text != "" && text != last:
			s.log.Error("the configuration is no longer usable: every hook exits with code 2 and pauses nothing", "error", text)
		case text == "" && last != "":
			s.log.Info("the configuration is usable again")
		}
		last = text
	}
}

// land blocks until nobody asks any more.
func (c *statusCache) land() {
	c.mu.Lock()
	flight := c.flight
	c.mu.Unlock()
	if flight != nil {
		<-flight
	}
}
