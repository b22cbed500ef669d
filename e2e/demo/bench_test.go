package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBench: the median of a real report in three variants.
func TestBench(t *testing.T) {
	data, err := os.ReadFile("testdata/report.json")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	add := func(name string, change func(*report)) {
		t.Helper()
		var r report
		if err := json.Unmarshal(data, &r); err != nil {
			t.Fatal(err)
		}
		change(&r)
		if err := r.write(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := bench(dir, &bytes.Buffer{}); err == nil {
		t.Error("no reports are no error")
	}
	for i, ms := range []int64{900, 473, 500} {
		add(fmt.Sprint(i+1), func(r *report) {
			r.Ways[0].operation("switchover").StallMS = ms
			r.Ways[1].Errors = i
		})
	}
	var out bytes.Buffer
	if err := bench(dir, &out); err != nil {
		t.Fatal(err)
	}
	said := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{"n = 3", "Patroni 4.0.7", "cores", "longest stall: switchover, ms 500 (473 to 900)",
		"longest stall: restart, ms", "not done", "errors 0 1 (0 to 2)", "left the pooler paused 0 0"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	figures, err := os.ReadFile(filepath.Join(dir, "figures.txt"))
	if err != nil || string(figures) != out.String() {
		t.Errorf("figures.txt: %v", err)
	}
	plot, err := os.ReadFile(filepath.Join(dir, "throughput.svg"))
	of, err2 := os.ReadFile(filepath.Join(dir, "3", "throughput.svg"))
	if err != nil || err2 != nil || !bytes.Equal(plot, of) {
		t.Errorf("the plot is not that of the median: %v %v", err, err2)
	}
	add("4", func(r *report) { r.Versions["Patroni"] = "4.1.5" })
	if err := bench(dir, &out); err == nil || !strings.Contains(err.Error(), "other programs") {
		t.Errorf("reports of different programs: %v", err)
	}
}
