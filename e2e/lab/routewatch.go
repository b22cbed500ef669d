package lab

import (
	"context"
	"sync"
	"time"
)

// RouteWatch looks over the route at who is the primary, as a pooler would, until [RouteWatch.Stop].
type RouteWatch struct {
	mu     sync.Mutex
	looks  []routeLook
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

type routeLook struct {
	began, ended time.Time
	leads        string // address of the primary; "" when there was none, or no answer within a second
}

// looksAtOnce bounds the looks under way. Each is a log-in, of which a slow machine cannot do fifty in a second.
const looksAtOnce = 3

// Watch starts to look every 20 ms, until ctx ends or [RouteWatch.Stop]. A look may wait for a server for up to a second; two others go on
// meanwhile.
func (r *Route) Watch(ctx context.Context) *RouteWatch { return WatchRoute(ctx, r.DSN()) }

// WatchRoute does so over any route.
func WatchRoute(ctx context.Context, dsn string) *RouteWatch {
	watching, cancel := context.WithCancel(ctx)
	w := &RouteWatch{cancel: cancel}
	look := func() {
		l := routeLook{began: time.Now()}
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		rows, _, err := simpleQuery(short, dsn, "SELECT inet_server_addr() AS a WHERE NOT pg_is_in_recovery()")
		if err == nil && len(rows) == 1 {
			l.leads = rows[0]["a"]
		}
		l.ended = time.Now()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.looks = append(w.looks, l)
	}
	w.wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		free := make(chan struct{}, looksAtOnce)
		for {
			select {
			case free <- struct{}{}:
				w.wg.Go(func() {
					defer func() { <-free }()
					look()
				})
			default:
			}
			select {
			case <-watching.Done():
				return
			case <-tick.C:
			}
		}
	})
	return w
}

// Stop ends the looks. It returns the address of the primary to which the last ones led, "" where they led to none, and when the first did
// after which all did.
func (w *RouteWatch) Stop() (address string, since time.Time) {
	w.cancel()
	w.wg.Wait()
	return arrival(w.looks)
}

// Leads is where the look led that was the last to begin of those that have ended.
func (w *RouteWatch) Leads() string {
	address, _ := w.LeadsFor()
	return address
}

// LeadsFor is [RouteWatch.Leads], and for how long every look has led there. A proxy that has just been started hands connections out to
// all its servers until their checks have failed.
func (w *RouteWatch) LeadsFor() (address string, long time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	address, since := arrival(w.looks)
	return address, time.Since(since)
}

func arrival(looks []routeLook) (leads string, since time.Time) {
	var last, astray time.Time // when they began
	for _, l := range looks {
		if l.began.After(last) {
			last, leads = l.began, l.leads
		}
	}
	for _, l := range looks {
		if l.leads != leads && l.began.After(astray) {
			astray = l.began
		}
	}
	for _, l := range looks {
		if l.leads == leads && l.began.After(astray) && (since.IsZero() || l.ended.Before(since)) {
			since = l.ended
		}
	}
	return leads, since
}
