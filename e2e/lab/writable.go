package lab

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"
)

// Span is a time during which something held.
type Span struct{ From, To time.Time }

// Length is the span's length.
func (s Span) Length() time.Duration { return s.To.Sub(s.From) }

// WritableWatch tries to write on every member, all the time, past route and poolers.
type WritableWatch struct {
	lab    *Lab
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	spans  map[string][]Span
}

// WatchWritable starts to try a write on every member every interval (20 ms is a good one). A write is a
// real commit (a logical message), on a server that says that it is not in recovery.
func (l *Lab) WatchWritable(interval time.Duration) *WritableWatch {
	ctx, cancel := context.WithCancel(context.Background())
	w := &WritableWatch{lab: l, cancel: cancel, spans: map[string][]Span{}}
	for _, m := range l.members {
		w.wg.Add(1)
		go func() { defer w.wg.Done(); w.watch(ctx, m, interval) }()
	}
	return w
}

func (w *WritableWatch) watch(ctx context.Context, m *Member, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	// CASE keeps a standby from trying the write. Not the server's pg_is_in_recovery alone: a server that
	// shuts down says "no" to the end.
	const write = `SELECT CASE WHEN pg_is_in_recovery() THEN false ELSE pg_logical_emit_message(true, 'lab', 'writable') IS NOT NULL END AS w`
	session := func() {
		connecting, cancel := context.WithTimeout(ctx, time.Second)
		conn, raw, err := connect(connecting, m.DSN())
		cancel()
		if err != nil {
			w.closed(m.Name)
			return
		}
		defer hangUp(conn, raw)
		for ctx.Err() == nil {
			sent := time.Now()
			raw.SetDeadline(sent.Add(time.Second))
			rows, _, err := runQuery(context.Background(), conn, write)
			switch {
			case err != nil:
				w.closed(m.Name)
				return
			case len(rows) == 1 && rows[0]["w"] == "t":
				w.wrote(m.Name, sent, time.Now())
			default:
				w.closed(m.Name)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}
	for ctx.Err() == nil {
		session()
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// closed ends the member's current span: the next write begins a new one.
func (w *WritableWatch) closed(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.spans[name]; len(s) > 0 && s[len(s)-1] != (Span{}) {
		w.spans[name] = append(s, Span{})
	}
}

func (w *WritableWatch) wrote(name string, sent, committed time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.spans[name]
	if len(s) == 0 {
		s = append(s, Span{})
	}
	last := &s[len(s)-1]
	if last.From.IsZero() {
		last.From = sent
	}
	last.To = committed
	w.spans[name] = s
}

// WritableReport says who took writes when.
type WritableReport struct {
	Spans   map[string][]Span // member's name to when it took writes
	Both    []Span            // when two or more members did
	Overlap time.Duration     // the length of Both
}

func (r WritableReport) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "two writable primaries for %.2f s", r.Overlap.Seconds())
	names := make([]string, 0, len(r.Spans))
	for name := range r.Spans {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		for _, s := range r.Spans[name] {
			fmt.Fprintf(&b, "; %s %s – %s", name, s.From.UTC().Format("15:04:05.000"), s.To.UTC().Format("15:04:05.000"))
		}
	}
	return b.String()
}

// Stop ends the watch and returns what it has seen.
func (w *WritableWatch) Stop() WritableReport {
	w.cancel()
	w.wg.Wait()
	r := WritableReport{Spans: map[string][]Span{}}
	for name, spans := range w.spans {
		for _, s := range spans {
			if s != (Span{}) {
				r.Spans[name] = append(r.Spans[name], s)
			}
		}
	}
	r.Both = overlaps(r.Spans)
	for _, s := range r.Both {
		r.Overlap += s.Length()
	}
	return r
}

// overlaps returns when spans of two or more members hold at once.
func overlaps(all map[string][]Span) []Span {
	type edge struct {
		at   time.Time
		open int
	}
	var edges []edge
	for _, spans := range all {
		for _, s := range spans {
			edges = append(edges, edge{s.From, 1}, edge{s.To, -1})
		}
	}
	sort.Slice(edges, func(i, j int) bool {
		if edges[i].at.Equal(edges[j].at) {
			return edges[i].open < edges[j].open
		}
		return edges[i].at.Before(edges[j].at)
	})
	var both []Span
	depth := 0
	for _, e := range edges {
		before := depth
		depth += e.open
		if before == 1 && depth == 2 {
			both = append(both, Span{From: e.at})
		}
		if before == 2 && depth == 1 {
			both[len(both)-1].To = e.at
		}
	}
	return both
}
