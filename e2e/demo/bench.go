package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// bench puts the reports of several runs, each in a folder of dir, into one: of each figure the median, the least and the most. The plot is
// that of the run whose stall is the median. It leaves figures.txt and throughput.svg and .png in dir, and writes the first to out, too.
func bench(dir string, out io.Writer) error {
	found, err := filepath.Glob(filepath.Join(dir, "*", "report.json"))
	if err != nil {
		return err
	}
	var runs []report
	for _, name := range found {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var r report
		if err := json.Unmarshal(data, &r); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if len(r.Ways) == 0 || len(runs) > 0 && (r.Suite != runs[0].Suite || !maps.Equal(r.Versions, runs[0].Versions)) {
			return &problem{name + " is of other programs than the first report", "empty " + dir + " and run make bench again"}
		}
		runs = append(runs, r)
	}
	if len(runs) == 0 {
		return &problem{"no reports in " + dir, "run make bench, which runs the demo first"}
	}
	text := figures(runs, machineText())
	middle := slices.SortedFunc(slices.Values(runs), func(a, b report) int {
		return int(stall(a.Ways[0], "switchover") - stall(b.Ways[0], "switchover"))
	})[(len(runs)-1)/2]
	files := map[string][]byte{"figures.txt": []byte(text)}
	for _, format := range []string{"svg", "png"} {
		if files["throughput."+format], err = middle.plot(format); err != nil {
			return err
		}
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	_, err = io.WriteString(out, text)
	return err
}

// stall is the longest of an operation, in ms; -1 where it was not done.
func stall(w way, name string) int64 {
	if o := w.operation(name); o != nil {
		return o.StallMS
	}
	return -1
}

// figures is the table of some runs.
func figures(runs []report, machine string) string {
	var b strings.Builder
	first := runs[0]
	var versions []string
	for _, name := range slices.Sorted(maps.Keys(first.Versions)) {
		versions = append(versions, name+" "+first.Versions[name])
	}
	fmt.Fprintf(&b, "make bench, %s, n = %d: median (least to most)\nDebian %s: %s\nMachine: %s\nLoad: %s\n\n",
		first.Made.UTC().Format(time.DateOnly), len(runs), first.Suite, strings.Join(versions, ", "), machine, first.Load)
	rows := [][]string{{""}}
	for _, w := range first.Ways {
		rows[0] = append(rows[0], w.Name)
	}
	row := func(head string, of func(way) (int64, bool)) {
		line := []string{head}
		for n := range first.Ways {
			var values []int64
			for _, r := range runs {
				if n < len(r.Ways) {
					if v, ok := of(r.Ways[n]); ok {
						values = append(values, v)
					}
				}
			}
			line = append(line, spread(values))
		}
		rows = append(rows, line)
	}
	for _, name := range []string{"switchover", "restart"} {
		row("longest stall: "+name+", ms", func(w way) (int64, bool) { v := stall(w, name); return v, v >= 0 })
	}
	row("beyond the switchover's own floor, ms", func(w way) (int64, bool) {
		o := w.operation("switchover")
		if o == nil || o.Floor == nil {
			return 0, false
		}
		return o.StallMS - o.Floor.total(), true
	})
	row("errors", func(w way) (int64, bool) { return int64(w.Errors), true })
	row("runs that lost an acknowledged write", func(w way) (int64, bool) { return b2i(w.LostWrites != ""), true })
	row("runs that left the pooler paused", func(w way) (int64, bool) {
		return b2i(slices.ContainsFunc(w.Operations, func(o operation) bool { return o.LeftPaused })), true
	})
	table(&b, rows)
	return b.String()
}

func b2i(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// spread is a median with what lies around it. Of an even number of values it is the lower one of the two in the middle, which was measured.
func spread(values []int64) string {
	if len(values) == 0 {
		return "not done"
	}
	slices.Sort(values)
	least, middle, most := values[0], values[(len(values)-1)/2], values[len(values)-1]
	if least == most {
		return fmt.Sprint(middle)
	}
	return fmt.Sprintf("%d (%d to %d)", middle, least, most)
}

// machineText is what the figures were measured on.
func machineText() string {
	cpu := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(text); m != nil {
			cpu = string(m[1])
		}
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if errors.Is(err, os.ErrNotExist) {
		kernel = []byte("unknown")
	}
	return fmt.Sprintf("%d cores, %s, Linux %s", runtime.NumCPU(), cpu, strings.TrimSpace(string(kernel)))
}
