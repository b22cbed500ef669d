package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// report is what the demo found out. Its JSON form is report.json.
type report struct {
	Made     time.Time         `json:"made"`
	Suite    string            `json:"suite"`
	Versions map[string]string `json:"versions"`
	Load     string            `json:"load"`
	Ways     []way             `json:"ways"`
}

// way is one pair of hooks and what clients saw with it.
type way struct {
	Name         string         `json:"name"`
	Transactions int            `json:"pgbench_transactions"`
	Writes       int            `json:"probe_writes"`
	Errors       int            `json:"errors"`
	ErrorTexts   map[string]int `json:"error_texts,omitempty"`
	LostWrites   string         `json:"lost_writes,omitempty"` // what the check says; empty: none
	Operations   []operation    `json:"operations"`
}

// operation is one handover.
type operation struct {
	Name       string    `json:"name"` // switchover, restart; on Kubernetes the pod's deletion
	From       string    `json:"from"`
	To         string    `json:"to"`
	Asked      time.Time `json:"asked"`
	Zero       time.Time `json:"zero"` // when PAUSE was sent (without one: when it was asked for); times in ms count from here
	StallMS    int64     `json:"longest_stall_ms"`
	Floor      *floor    `json:"floor,omitempty"` // of a switchover
	LeftPaused bool      `json:"left_paused"`     // the demo had to resume
	Steps      []step    `json:"steps"`
	Throughput []bin     `json:"throughput"`

	log string // everything that was written down
}

// floor is how much of a switchover's stall PostgreSQL and Patroni alone take, by their own logs. Whoever pauses the poolers adds the rest.
type floor struct {
	ShutdownMS  int64 `json:"server_down_ms"`
	LockMS      int64 `json:"leader_key_moved_ms"`
	PromotionMS int64 `json:"promoted_ms"`
}

func (f floor) total() int64 { return f.ShutdownMS + f.LockMS + f.PromotionMS }

// bin is how many writes of the probe were acknowledged in a piece of time.
type bin struct {
	From    int64 `json:"from_ms"` // since operation.Zero
	Commits int   `json:"commits"`
}

const (
	binWidth = 100 * time.Millisecond
	before   = 2 * time.Second         // what is shown before operation.Zero
	after    = 2500 * time.Millisecond // how long clients work on after it: more than a plot shows
)

// throughput counts commits in pieces of binWidth, from so long before a moment. Only whole pieces are counted.
func throughput(commits [][]time.Time, zero, until time.Time) []bin {
	from := zero.Add(-before)
	bins := make([]bin, max(0, int(until.Sub(from)/binWidth)))
	for i := range bins {
		bins[i].From = (time.Duration(i)*binWidth - before).Milliseconds()
	}
	for _, conn := range commits {
		for _, at := range conn {
			// A division would round what is before from to the first piece.
			if i := int(at.Sub(from) / binWidth); !at.Before(from) && i < len(bins) {
				bins[i].Commits++
			}
		}
	}
	return bins
}

// errorsOf counts what clients were told: the probe's, pgbench's, and its clients that gave up.
func (w *way) errorsOf(probe lab.ProbeResult, bench lab.PgbenchResult) {
	w.ErrorTexts = map[string]int{}
	maps.Copy(w.ErrorTexts, probe.ErrorTexts())
	for _, text := range bench.Errors {
		w.ErrorTexts["pgbench: "+text]++
	}
	w.Errors = 0
	for _, n := range w.ErrorTexts {
		w.Errors += n
	}
}

func (w way) operation(name string) *operation {
	for i := range w.Operations {
		if w.Operations[i].Name == name {
			return &w.Operations[i]
		}
	}
	return nil
}

func (o operation) step(name stepName) (step, bool) {
	for _, s := range o.Steps {
		if s.Name == name {
			return s, true
		}
	}
	return step{}, false
}

// ms is when a step was, on the operation's own clock.
func (o operation) ms(s step) int64 { return s.At.Sub(o.Zero).Round(time.Millisecond).Milliseconds() }

// failure says why the demo did not show what it is to show; empty if it did. The runbook's way may fail as it likes.
func (r report) failure() string {
	ours := r.Ways[0]
	switch {
	case ours.Errors > 0:
		return fmt.Sprintf("with %s clients saw %d errors", ours.Name, ours.Errors)
	case ours.LostWrites != "":
		return fmt.Sprintf("with %s writes were lost: %s", ours.Name, ours.LostWrites)
	}
	for _, o := range ours.Operations {
		if o.LeftPaused {
			return fmt.Sprintf("with %s the pooler was left paused by the %s", ours.Name, o.Name)
		}
	}
	return ""
}

// operations are the names of all that was done, in the order of the first way.
func (r report) operations() (names []string) {
	for _, w := range r.Ways {
		for _, o := range w.Operations {
			if !slices.Contains(names, o.Name) {
				names = append(names, o.Name)
			}
		}
	}
	return names
}

// where is what the programs are of.
func (r report) where() string {
	if r.Suite == "" {
		return "Programs" // on Kubernetes, which is one of them
	}
	return "Debian " + r.Suite
}

// text is the report for a person.
func (r report) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "pgbaton demo, %s\n", r.Made.UTC().Format("2006-01-02 15:04 UTC"))
	var versions []string
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		versions = append(versions, name+" "+r.Versions[name])
	}
	fmt.Fprintf(&b, "%s: %s\nLoad: %s\n\n", r.where(), strings.Join(versions, ", "), r.Load)

	var rows [][]string
	cells := func(head string, each func(way) string) {
		line := []string{head}
		for _, w := range r.Ways {
			line = append(line, each(w))
		}
		rows = append(rows, line)
	}
	cells("", func(w way) string { return w.Name })
	if slices.ContainsFunc(r.Ways, func(w way) bool { return w.Transactions > 0 }) { // on Kubernetes nobody counts them
		cells("pgbench transactions", func(w way) string { return fmt.Sprint(w.Transactions) })
	}
	cells("acknowledged writes of the probe", func(w way) string { return fmt.Sprint(w.Writes) })
	cells("errors", func(w way) string { return fmt.Sprint(w.Errors) })
	cells("acknowledged writes lost", func(w way) string {
		if w.LostWrites != "" {
			return "SOME"
		}
		return "0"
	})
	for _, name := range r.operations() {
		cells("longest stall: "+name, func(w way) string {
			o := w.operation(name)
			switch {
			case o == nil:
				return "not done"
			case o.LeftPaused:
				return fmt.Sprintf("paused for ever (ended by the demo after %.1f s)", float64(o.StallMS)/1000)
			}
			return fmt.Sprintf("%.2f s", float64(o.StallMS)/1000)
		})
	}
	floorCell := func(head string, of func(operation, floor) string) {
		cells(head, func(w way) string {
			if o := w.operation("switchover"); o != nil && o.Floor != nil {
				return of(*o, *o.Floor)
			}
			return "–"
		})
	}
	rows = append(rows, nil)
	floorCell("the switchover's own floor, ms", func(_ operation, f floor) string { return fmt.Sprint(f.total()) })
	floorCell("  server down", func(_ operation, f floor) string { return fmt.Sprint(f.ShutdownMS) })
	floorCell("  leader key moved", func(_ operation, f floor) string { return fmt.Sprint(f.LockMS) })
	floorCell("  promoted", func(_ operation, f floor) string { return fmt.Sprint(f.PromotionMS) })
	floorCell("longest stall beyond the floor, ms", func(o operation, f floor) string { return fmt.Sprint(o.StallMS - f.total()) })
	table(&b, rows)
	b.WriteString("The floor is what PostgreSQL and Patroni alone take, by their own logs of this run.\n")

	b.WriteString("\nTime line, ms since PAUSE\n")
	head, names := []string{""}, []string{""}
	var all []operation
	for _, w := range r.Ways {
		for _, o := range w.Operations {
			head = append(head, w.Name)
			what := o.Name + " " + o.From + "→" + o.To
			if o.From == o.To {
				what = o.Name + " of " + o.From
			}
			names = append(names, what)
			all = append(all, o)
		}
	}
	rows = [][]string{head, names}
	for _, name := range stepNames {
		line := []string{string(name)}
		for _, o := range all {
			if s, have := o.step(name); have {
				line = append(line, fmt.Sprint(o.ms(s)))
			} else {
				line = append(line, "–")
			}
		}
		rows = append(rows, line)
	}
	table(&b, rows)
	for _, w := range r.Ways {
		for _, text := range slices.Sorted(maps.Keys(w.ErrorTexts)) {
			fmt.Fprintf(&b, "\n%s: %d × %s", w.Name, w.ErrorTexts[text], text)
		}
		if w.LostWrites != "" {
			fmt.Fprintf(&b, "\n%s: %s", w.Name, w.LostWrites)
		}
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// table writes rows as columns: the first one stands left, the others right.
func table(b *strings.Builder, rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				b.WriteString(cell + pad)
			} else {
				b.WriteString("   " + pad + cell)
			}
		}
		b.WriteString("\n")
	}
}

func fileName(name string) string {
	return strings.NewReplacer(" ", "-", "'", "").Replace(name)
}

// write leaves the report in a directory: text, JSON, plot, and the time lines in full.
func (r report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	files := map[string][]byte{"report.txt": []byte(r.text()), "report.json": append(data, '\n')}
	for format, name := range map[string]string{"svg": "throughput.svg", "png": "throughput.png"} {
		if files[name], err = r.plot(format); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, w := range r.Ways {
		for _, o := range w.Operations {
			files[fmt.Sprintf("timeline-%s-%s.log", fileName(w.Name), fileName(o.Name))] = []byte(o.log)
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return &problem{fmt.Sprintf("cannot write the report: %v", err), "make room or fix the rights of " + dir + ", or use -out"}
		}
	}
	return nil
}
