package main

import (
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"github.com/mattn/go-runewidth"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/pgbaton/pgbaton/api"
)

// redraw is how often the list is drawn anew: the time of the running step moves, and a terminal over a slow line can follow.
const redraw = 200 * time.Millisecond

// list is the plan on a terminal, a line a step, and below it one line that says how the present step stands. What is written to the
// diversion meanwhile stands above.
type list struct {
	out      io.Writer
	diverted *diversion
	now      func() time.Time

	drawn *mpb.Progress // nil: there is no plan yet

	mu    sync.Mutex // what is drawn, by another goroutine
	steps []api.StepReport
	live  string

	rows   []*mpb.Bar // of the steps
	bottom *mpb.Bar   // of the live line
}

func newList(out io.Writer, diverted *diversion) *list {
	return &list{out: out, diverted: diverted, now: time.Now}
}

func (l *list) event(e api.ClusterEvent) {
	switch e.Event {
	case api.EventPlan, api.EventStep:
		l.set(e.Plan)
	case api.EventLive:
		if e.Live != nil {
			l.mu.Lock()
			l.live = liveText(*e.Live)
			l.mu.Unlock()
		}
	case api.EventNote:
		l.note(e.Text)
	}
}

// set changes the plan that is drawn. A step that begins or ends has no live line yet, or none any more.
func (l *list) set(plan []api.StepReport) {
	l.mu.Lock()
	l.steps, l.live = plan, ""
	l.mu.Unlock()
	if l.drawn == nil {
		l.drawn = mpb.New(mpb.WithOutput(l.out), mpb.WithRefreshRate(redraw))
		l.diverted.divert(l.drawn)
		l.bottom = l.row(math.MaxInt32, l.below)
	}
	for n := len(l.rows); n < len(plan); n++ {
		l.rows = append(l.rows, l.row(n, func() string { return l.step(n) }))
	}
	for ; len(l.rows) > len(plan); l.rows = l.rows[:len(l.rows)-1] {
		l.rows[len(l.rows)-1].Abort(true)
	}
}

// below is the live line.
func (l *list) below() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.live == "" {
		return ""
	}
	return "       " + l.live
}

// row adds a line that says what text returns when it is drawn.
func (l *list) row(priority int, text func() string) *mpb.Bar {
	fill := mpb.BarFillerFunc(func(w io.Writer, s decor.Statistics) error {
		_, err := io.WriteString(w, runewidth.Truncate(text(), max(1, s.AvailableWidth-1), "…"))
		return err
	})
	return l.drawn.New(1, filler{fill}, mpb.BarPriority(priority), mpb.BarFillerTrim())
}

// filler gives the library a line of text where it expects the style of a bar.
type filler struct{ mpb.BarFiller }

func (f filler) Build() mpb.BarFiller { return f.BarFiller }

// step is the line of one.
func (l *list) step(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n >= len(l.steps) {
		return ""
	}
	s := l.steps[n]
	took := ""
	switch {
	case s.State == api.StepRunning && !s.Began.IsZero():
		took = l.now().Sub(s.Began).Truncate(100 * time.Millisecond).String()
	case s.TookSeconds > 0:
		took = asDuration(s.TookSeconds).Round(100 * time.Millisecond).String()
	}
	text := oneLine(s.Text)
	if s.State == api.StepPlanned {
		text = oneLine(s.Why)
	} else if s.State == api.StepDone {
		text = costText(s.Cost)
	}
	return fmt.Sprintf("%s %d  %s  %8s  %s", mark(s.State), s.Number, runewidth.FillRight(stepName(s), l.widest()), took, text)
}

// widest is how wide the longest name of a step is.
func (l *list) widest() int {
	widest := 0
	for _, s := range l.steps {
		widest = max(widest, runewidth.StringWidth(stepName(s)))
	}
	return widest
}

func mark(state string) string {
	switch state {
	case api.StepDone:
		return "[x]"
	case api.StepRunning:
		return "[>]"
	case api.StepFailed:
		return "[!]"
	case api.StepUnknown:
		return "[?]"
	case api.StepSkipped:
		return "[-]"
	}
	return "[ ]"
}

// costText is what a step cost the clients, in a few words.
func costText(c *api.Cost) string {
	switch {
	case c == nil:
		return "done"
	case c.Errors > 0:
		return fmt.Sprintf("done, and %s got an error; longest wait %s", count(c.Errors, "client"), asDuration(c.StallSeconds))
	case c.Waiting == 0:
		return "done, no client waited"
	}
	return fmt.Sprintf("done, %s waited, %s at most", count(c.Waiting, "client"), asDuration(c.StallSeconds))
}

func (l *list) note(text string) {
	if l.drawn == nil {
		_, _ = fmt.Fprintln(l.out, oneLine(text))
		return
	}
	_, _ = fmt.Fprintln(l.drawn, oneLine(text))
}

func (l *list) end() {
	if l.drawn == nil {
		return
	}
	l.diverted.divert(nil) // before: what is written to a list that is drawn for the last time is lost
	l.bottom.Abort(true)
	for _, row := range l.rows {
		row.Increment()
	}
	l.drawn.Wait()
	l.drawn = nil
}
