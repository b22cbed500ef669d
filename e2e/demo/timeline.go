package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/state"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// stepName is one moment of a handover.
type stepName string

const (
	stepAsked    stepName = "asked for"
	stepPause    stepName = "pause sent"
	stepDrained  stepName = "drained"
	stepDown     stepName = "server down"
	stepLock     stepName = "leader key moved"
	stepPromoted stepName = "promoted (started)"
	stepWritable stepName = "writable"
	stepRoute    stepName = "route leads there"
	stepResumed  stepName = "resumed"
	stepAll      stepName = "last client writes again"
)

var stepNames = []stepName{
	stepAsked,
	stepPause,
	stepDrained,
	stepDown,
	stepLock,
	stepPromoted,
	stepWritable,
	stepRoute,
	stepResumed,
	stepAll,
}

// step is when it was, and who says so.
type step struct {
	Name   stepName  `json:"name"`
	At     time.Time `json:"at"`
	Source string    `json:"source"`
}

// handoverSteps finds the moments of a handover. What pgbaton's journal has is taken from there; the rest, and all of
// the runbook's, from the servers' own logs. A moment that nobody has written down is left out.
func handoverSteps(
	asked time.Time,
	from, to string,
	journal []state.Entry,
	events []lab.Event,
	moves []lab.RouteMove,
	stall lab.Stall,
) []step {
	found := map[stepName]step{stepAsked: {Name: stepAsked, At: asked, Source: "demo"}}
	add := func(name stepName, at time.Time, source string) {
		found[name] = step{Name: name, At: at, Source: source}
	}

	// A patient pause may have taken several attempts: the last one counts. Of several poolers the last one counts, too,
	// except for the first to be paused.
	attempt := asked
	for _, e := range journal {
		if e.Event == state.EventUndone {
			attempt = e.Time
		}
	}
	for _, e := range journal {
		source := e.Member + " journal"
		switch e.Event {
		case state.EventPauseSent:
			if _, have := found[stepPause]; !have && !e.Time.Before(attempt) {
				add(stepPause, e.Time, source)
			}
		case state.EventDrained:
			add(stepDrained, e.Time, source)
		case state.EventServerDown:
			add(stepDown, e.Time, source)
		case state.EventWritable:
			add(stepWritable, e.Time, source)
		case state.EventRoute:
			add(stepRoute, e.Time, source)
		case state.EventResumed:
			add(stepResumed, e.Time, source)
		}
	}

	orLog := func(name stepName, source, text string) {
		if _, have := found[name]; have {
			return
		}
		for _, e := range events {
			if !e.At.Before(asked.Truncate(time.Millisecond)) && strings.HasSuffix(e.Source, source) && strings.Contains(e.Text, text) {
				add(name, e.At, e.Source+" log")
				return
			}
		}
	}
	orLog(stepPause, "pgbouncer", "PAUSE command issued")
	orLog(stepDrained, from+" patroni", "msg=drained hook=before_stop")
	orLog(stepDown, from+" postgresql", "database system is shut down")
	up := "archive recovery complete" // PostgreSQL's last word in a promotion before it takes writes
	if from == to {
		up = "database system is ready to accept connections"
	}
	orLog(stepPromoted, to+" postgresql", up)
	if from != to {
		orLog(stepLock, to+" patroni", "promoted self to leader by acquiring session lock")
	}
	orLog(stepWritable, to+" patroni", "msg=writable hook=worker")
	orLog(stepRoute, to+" patroni", `msg="the route leads here" hook=worker`)
	if _, have := found[stepResumed]; !have {
		seen := map[string]bool{} // poolers: each may be told more than once
		for _, e := range events {
			if !e.At.Before(asked.Truncate(time.Millisecond)) && strings.HasSuffix(e.Source, "pgbouncer") && !seen[e.Source] &&
				strings.Contains(e.Text, "RESUME command issued") {
				seen[e.Source] = true
				add(stepResumed, e.At, e.Source+" log")
			}
		}
	}
	for _, m := range moves { // more exact than Patroni's log
		if m.At.After(asked) && m.To == to && from != to {
			add(stepLock, m.At, "route")
			break
		}
	}
	if !stall.To.IsZero() {
		add(stepAll, stall.To, "probe")
	}

	var steps []step
	for _, name := range stepNames {
		if s, have := found[name]; have {
			steps = append(steps, s)
		}
	}
	return steps
}

// journals is what the hooks of all members have written between two moments, oldest first.
func journals(ctx context.Context, l *lab.Lab, from, to time.Time) ([]state.Entry, error) {
	var all []state.Entry
	for _, m := range l.Members() {
		r, err := m.Exec(ctx, nil, "cat", stateDir+"/journal.jsonl")
		if err != nil {
			return nil, fmt.Errorf("%s: journal: %w", m.Name, err)
		}
		// No journal: no hook has run there.
		for line := range strings.SplitSeq(r.Stdout, "\n") {
			var e state.Entry
			if json.Unmarshal([]byte(line), &e) == nil && !e.Time.Before(from) && !e.Time.After(to) {
				all = append(all, e)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b state.Entry) int { return a.Time.Compare(b.Time) })
	return all, nil
}

// merged is everything that was written down, as one log, with the time since a moment.
func merged(zero time.Time, journal []state.Entry, events []lab.Event) string {
	all := slices.Clone(events)
	for _, e := range journal {
		text := e.Hook + ": " + e.Event
		if e.Pooler != "" {
			text += " " + e.Pooler
		}
		if e.Took > 0 {
			text += fmt.Sprintf(" took %s", e.Took.Round(100*time.Microsecond))
		}
		if e.Text != "" {
			text += ": " + e.Text
		}
		all = append(all, lab.Event{At: e.Time, Source: e.Member + " journal", Text: text})
	}
	slices.SortStableFunc(all, func(a, b lab.Event) int {
		return cmp.Or(a.At.Truncate(time.Millisecond).Compare(b.At.Truncate(time.Millisecond)), a.At.Compare(b.At))
	})
	var b strings.Builder
	for _, e := range all {
		fmt.Fprintf(
			&b,
			"%8d ms  %-14s %s\n",
			e.At.Sub(zero).Milliseconds(),
			e.Source,
			strings.ReplaceAll(e.Text, "\n", "\n                            "),
		)
	}
	return b.String()
}
