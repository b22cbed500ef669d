package lab

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"time"
)

// Event is one line of some log.
type Event struct {
	At     time.Time
	Source string // "m1 patroni", "m1 postgresql", "m1 output", "p1 pgbouncer", "route"
	Text   string // the line without its time
}

func (e Event) String() string {
	return fmt.Sprintf("%s  %-14s %s", e.At.Format("15:04:05.000"), e.Source, e.Text)
}

// Patroni writes "2026-01-02 03:04:05,678 INFO: …", PostgreSQL and PgBouncer "2026-01-02 03:04:05.678 UTC
// [12] …", slog and others RFC 3339 after "time=" (or "time":").
var (
	stampPlain = regexp.MustCompile(`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)[.,](\d{3}) (?:UTC )?`)
	stampSlog  = regexp.MustCompile(`"?time"?[=:]"?(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d))"?,? ?`)
)

// parseEvent reads a line's time; ok is false where it has none.
func parseEvent(line string) (at time.Time, text string, ok bool) {
	if m := stampPlain.FindStringSubmatch(line); m != nil {
		at, err := time.Parse("2006-01-02 15:04:05.000", m[1]+"."+m[2])
		return at, line[len(m[0]):], err == nil
	}
	if m := stampSlog.FindStringSubmatchIndex(line); m != nil {
		at, err := time.Parse(time.RFC3339Nano, line[m[2]:m[3]])
		return at.UTC(), line[:m[0]] + line[m[1]:], err == nil
	}
	return time.Time{}, line, false
}

// ReadEvents reads a log. A line without a time belongs to the one before it.
func ReadEvents(r io.Reader, source string) ([]Event, error) {
	var events []Event
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		at, text, ok := parseEvent(lines.Text())
		switch {
		case ok:
			events = append(events, Event{at, source, text})
		case len(events) > 0:
			events[len(events)-1].Text += "\n" + text
		}
	}
	return events, lines.Err()
}

// TimeLine merges what all servers have logged between two moments, oldest first.
func (l *Lab) TimeLine(from, to time.Time) ([]Event, error) {
	var all []Event
	read := func(path, source string) error {
		f, err := os.Open(path)
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		events, err := ReadEvents(f, source)
		for _, e := range events {
			if !e.At.Before(from.Truncate(time.Millisecond)) && !e.At.After(to) {
				all = append(all, e)
			}
		}
		return err
	}
	for _, m := range l.members {
		for path, source := range map[string]string{m.LogFile("patroni.log"): "patroni", m.LogFile("postgresql.log"): "postgresql",
			m.OutputFile(): "output"} {
			if err := read(path, m.Name+" "+source); err != nil {
				return nil, err
			}
		}
	}
	for _, p := range l.poolers {
		if err := read(p.LogFile(), p.Name+" pgbouncer"); err != nil {
			return nil, err
		}
	}
	if l.route != nil {
		for _, move := range l.route.Moves() {
			if !move.At.Before(from) && !move.At.After(to) {
				all = append(all, Event{move.At.UTC(), "route", "leads to " + move.To})
			}
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].At.Before(all[j].At) })
	return all, nil
}

// SaveLogs copies all logs below dir, and the merged time line of the lab's whole life as timeline.log.
func (l *Lab) SaveLogs(dir string) error {
	if err := os.CopyFS(dir, os.DirFS(l.logDir)); err != nil {
		return err
	}
	events, err := l.TimeLine(time.Time{}, time.Now())
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, e := range events {
		b.WriteString(e.String() + "\n")
	}
	return os.WriteFile(filepath.Join(dir, "timeline.log"), []byte(b.String()), 0o644)
}

// TruncateLogs empties every log, while their servers write on: each appends. So what is found in one afterwards is new.
func (l *Lab) TruncateLogs() error {
	return filepath.WalkDir(l.logDir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		return os.Truncate(path, 0)
	})
}
