package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-isatty"

	"github.com/pgbaton/pgbaton/api"
)

// liveEvery is how often the log says how a step stands while nothing else changes: the list on a terminal shows it each second.
const liveEvery = 10 * time.Second

// Kinds of steps, as api.StepReport has them.
const (
	kindSwitchover = "switchover"
	kindInPlace    = "restart-in-place"
)

// progress shows a run of planned maintenance while it goes on. Its methods are called one at a time, and block on nothing but their
// output; what cannot be written is lost, because a terminal that is gone is no reason to leave a cluster half done.
type progress interface {
	event(api.ClusterEvent)
	// note is a line of this program itself, such as what Ctrl-C has come to.
	note(text string)
	// end takes leave of the terminal; what is written to it afterwards stands below.
	end()
}

// isTerminal reports whether a stream leads to a terminal that a list can be drawn on.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	term := os.Getenv("TERM")
	return isatty.IsTerminal(f.Fd()) && term != "" && term != "dumb"
}

// progressOf is the form for where the output goes: JSON lines where they are asked for, the list on a terminal, else the log.
func (p *program) progressOf(command, output string) progress {
	switch {
	case output == "json":
		return &jsonProgress{out: json.NewEncoder(p.stdout), log: p.log().With("hook", command)}
	case isTerminal(p.stdout):
		return newList(p.stdout, p.diverted)
	}
	return &logProgress{log: p.log().With("hook", command)}
}

// jsonProgress is a line of JSON an event.
type jsonProgress struct {
	out *json.Encoder
	log *slog.Logger
}

func (j *jsonProgress) event(e api.ClusterEvent) { _ = j.out.Encode(e) }
func (j *jsonProgress) note(text string)         { j.log.Warn(text) }
func (j *jsonProgress) end()                     {}

// logProgress is a line in the log an event.
type logProgress struct {
	log   *slog.Logger
	waits string    // what was waited for when it was last said
	said  time.Time // when that was
}

func (l *logProgress) note(text string) { l.log.Warn(text) }
func (l *logProgress) end()             {}

func (l *logProgress) event(e api.ClusterEvent) {
	log := l.log.With("run", e.Run)
	switch e.Event {
	case api.EventPlan:
		for _, s := range e.Plan {
			log.Info("planned", "step", s.Number, "do", stepName(s), "state", s.State, "why", oneLine(s.Why))
		}
	case api.EventStep:
		l.waits, l.said = "", time.Time{}
		s := stepOf(e)
		if s == nil {
			log.Info(oneLine(e.Text), "step", e.Step)
			return
		}
		level := slog.LevelInfo
		if s.State == api.StepFailed || s.State == api.StepUnknown {
			level = slog.LevelError
		}
		words := []any{"step", s.Number, "of", len(e.Plan), "do", stepName(*s), "state", s.State}
		if s.TookSeconds > 0 {
			words = append(words, "took", asDuration(s.TookSeconds))
		}
		if text := firstText(s.Text, e.Text); text != "" {
			words = append(words, "text", oneLine(text))
		}
		if c := s.Cost; c != nil {
			words = append(words, "stall", asDuration(c.StallSeconds), "waiting_clients", c.Waiting)
			if c.Errors >= 0 {
				words = append(words, "client_errors", c.Errors)
			}
		}
		log.Log(context.Background(), level, "step", words...)
	case api.EventLive:
		if e.Live == nil || e.Live.Waits == l.waits && e.Time.Sub(l.said) < liveEvery {
			return
		}
		l.waits, l.said = e.Live.Waits, e.Time
		log.Info("waiting", "step", e.Step, "member", e.Live.Member, "for", oneLine(e.Live.Waits), "lag_bytes", e.Live.LagBytes,
			"paused_poolers", e.Live.Paused, "waiting_clients", e.Live.Waiting, "longest", asDuration(e.Live.MaxWait))
	default:
		log.Info(oneLine(e.Text), "event", e.Event)
	}
}

// stepOf is the step that an event is about; nil where it has none.
func stepOf(e api.ClusterEvent) *api.StepReport {
	for i := range e.Plan {
		if e.Plan[i].Number == e.Step {
			return &e.Plan[i]
		}
	}
	return nil
}

// stepName is what a step does, in a few words.
func stepName(s api.StepReport) string {
	switch s.Kind {
	case kindSwitchover:
		to := s.Candidate
		if to == "" {
			to = "the candidate that is best then"
		}
		return "switchover " + s.Member + " → " + to
	case kindInPlace:
		return "restart " + s.Member + " in place"
	}
	return s.Kind + " " + s.Member
}

func firstText(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

func asDuration(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond)
}

// liveText is how a step stands, as a line.
func liveText(l api.LiveReport) string {
	var words []string
	if l.Waits != "" {
		words = append(words, strings.TrimPrefix(l.Member+": ", ": ")+l.Waits)
	} else if l.Member != "" {
		words = append(words, l.Member)
	}
	if l.LagBytes > 0 {
		words = append(words, bytesText(l.LagBytes)+" behind")
	}
	if l.Paused > 0 {
		words = append(words, count(l.Paused, "pooler")+" paused")
	}
	if l.Unanswered > 0 {
		words = append(words, count(l.Unanswered, "console")+" without an answer")
	}
	waiting := count(l.Waiting, "client") + " waiting"
	if l.Waiting > 0 && l.MaxWait > 0 {
		waiting += fmt.Sprintf(" (longest %s)", asDuration(l.MaxWait).Round(100*time.Millisecond))
	}
	return strings.Join(append(words, waiting), ", ")
}

// bytesText is a number of bytes for people, as pg_size_pretty writes it: from 10 of a unit on no fraction is of interest.
func bytesText(n int64) string {
	const step = 1024
	units := []string{"B", "kB", "MB", "GB", "TB"}
	i := 0
	for n >= 10*step && i < len(units)-1 {
		n = (n + step/2) / step
		i++
	}
	return fmt.Sprintf("%d %s", n, units[i])
}

// diversion is a stream whose lines go elsewhere while a list is drawn on the terminal that it leads to.
type diversion struct {
	mu   sync.Mutex
	home io.Writer
	away io.Writer // nil: home
}

// Write writes to where the stream leads now. A list that is over takes nothing more: then home.
func (d *diversion) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away != nil {
		if n, err := d.away.Write(b); err == nil {
			return n, nil
		}
	}
	return d.home.Write(b)
}

// divert leads it elsewhere; nil: home.
func (d *diversion) divert(away io.Writer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = away
}
