package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/state"

	"github.com/google/go-cmp/cmp"

	"github.com/pgbaton/pgbaton/e2e/lab"
	"github.com/pgbaton/pgbaton/e2e/seen"
)

var update = flag.Bool("update", false, "write testdata/report.txt anew")

// recorded is a report of a real run.
func recorded(t *testing.T) report {
	t.Helper()
	data, err := os.ReadFile("testdata/report.json")
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReportText(t *testing.T) {
	got := recorded(t).text()
	if *update {
		if err := os.WriteFile("testdata/report.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/report.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("(-want +got; -update writes it anew)\n%s", diff)
	}
}

func TestReportWithoutFloor(t *testing.T) {
	r := recorded(t)
	r.Ways[1].Operations[0].Floor = nil
	line := regexp.MustCompile(
		`(?m)^(the switchover's own floor|  server down|  leader key moved|  promoted|longest stall beyond the floor).* (\d+) +–$`,
	)
	if text := r.text(); len(line.FindAllString(text, -1)) != 5 {
		t.Errorf("a floor that is not known is not said to be so:\n%s", text)
	}
}

func TestReportNamesWhatWentWrong(t *testing.T) {
	r := recorded(t)
	if f := r.failure(); f != "" {
		t.Errorf("a good run fails: %s", f)
	}
	r.Ways[1].Errors, r.Ways[1].Operations[0].LeftPaused = 7, true
	if f := r.failure(); f != "" {
		t.Errorf("what happens by the runbook is not ours: %s", f)
	}
	if text := r.text(); !strings.Contains(text, "paused for ever") {
		t.Errorf("it does not say that the runbook's way was left paused:\n%s", text)
	}
	r.Ways[0].Operations[1].LeftPaused = true
	if f := r.failure(); !strings.Contains(f, "left paused by the restart") {
		t.Errorf("left paused: %q", f)
	}
	w := &r.Ways[0]
	w.errorsOf(lab.ProbeResult{Errors: []lab.ProbeError{{Text: "FATAL: cut"}, {Text: "FATAL: cut"}}},
		lab.PgbenchResult{Errors: []string{"client 1 aborted"}})
	if f := r.failure(); !strings.Contains(f, "3 errors") {
		t.Errorf("errors: %q", f)
	}
	if text := r.text(); !strings.Contains(text, "2 × FATAL: cut") || !strings.Contains(text, "1 × pgbench: client 1 aborted") {
		t.Errorf("it does not name the errors:\n%s", text)
	}
}

func TestPlotSVG(t *testing.T) {
	data, err := recorded(t).plot("svg")
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	paths, inText := 0, false
	for decoder := xml.NewDecoder(bytes.NewReader(data)); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not XML: %v", err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			inText = token.Name.Local == "text"
			if token.Name.Local == "path" {
				paths++
			}
		case xml.CharData:
			if inText {
				texts = append(texts, string(token))
			}
		case xml.EndElement:
			inText = false
		}
	}
	all := strings.Join(texts, "\n")
	for _, want := range []string{"pgbaton: longest stall", "by the runbook: longest stall", "PAUSE", "RESUME after",
		"commits per second", "time since PAUSE (s)", "Patroni 4."} {
		if !strings.Contains(all, want) {
			t.Errorf("no text %q in\n%s", want, all)
		}
	}
	if n := strings.Count(all, "RESUME after"); n != 2 {
		t.Errorf("%d marks of RESUME, want one in each panel", n)
	}
	if paths < 20 {
		t.Errorf("only %d paths", paths)
	}
}

func TestPlotPNG(t *testing.T) {
	data, err := recorded(t).plot("png")
	if err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	size := picture.Bounds().Size()
	if size.X < 1200 || size.Y < 700 {
		t.Errorf("%v is too small to read", size)
	}
	// Both panels have a curve and a stall.
	seen := map[bool]map[[3]uint32]int{true: {}, false: {}}
	for y := range size.Y {
		for x := range size.X {
			r, g, b, _ := picture.At(x, y).RGBA()
			seen[y < size.Y/2][[3]uint32{r >> 8, g >> 8, b >> 8}]++
		}
	}
	for upper, colours := range seen {
		for name, c := range map[string][3]uint32{"curve": {0x00, 0x72, 0xB2}, "stall": {0xFB, 0xE3, 0xD0}} {
			if colours[c] == 0 {
				t.Errorf("no %s in the panel (upper: %v)", name, upper)
			}
		}
	}
}

func TestPlotWithoutSwitchover(t *testing.T) {
	if _, err := (report{Ways: []way{{Name: "pgbaton"}}}).plot("svg"); err == nil {
		t.Error("no error")
	}
}

func TestThroughput(t *testing.T) {
	zero := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(d time.Duration) time.Time { return zero.Add(d) }
	bins := throughput([][]time.Time{
		{at(-before - time.Millisecond), at(-before), at(0), at(99 * time.Millisecond)},
		{at(100 * time.Millisecond), at(250 * time.Millisecond)},
	}, zero, at(250*time.Millisecond))
	want := map[int64]int{-2000: 1, 0: 2, 100: 1} // 250 ms is in a piece that is not whole
	if len(bins) != 22 {
		t.Errorf("%d pieces", len(bins))
	}
	for _, b := range bins {
		if b.Commits != want[b.From] {
			t.Errorf("%d commits from %d ms, want %d", b.Commits, b.From, want[b.From])
		}
	}
}

func TestHandoverSteps(t *testing.T) {
	asked := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(ms int) time.Time { return asked.Add(time.Duration(ms) * time.Millisecond) }
	entry := func(ms int, member, event string) state.Entry {
		return state.Entry{Time: at(ms), Member: member, Event: event}
	}
	// As a run on trixie left them.
	events := []lab.Event{
		{At: at(-900), Source: "p1 pgbouncer", Text: "[1] LOG RESUME command issued"},
		{At: at(578), Source: "p1 pgbouncer", Text: "[1] LOG PAUSE command issued"},
		{At: at(654), Source: "m1 postgresql", Text: "[53] LOG:  database system is shut down"},
		{At: at(1117), Source: "m3 postgresql", Text: "[46] LOG:  archive recovery complete"},
		{At: at(1146), Source: "m3 postgresql", Text: "[42] LOG:  database system is ready to accept connections"},
		{At: at(1149), Source: "p1 pgbouncer", Text: "[1] LOG RESUME command issued"},
	}
	moves := []lab.RouteMove{{At: at(-5000), To: "m1"}, {At: at(926), To: "m3"}}
	stall := lab.Stall{From: at(570), To: at(1228)}
	ours := []state.Entry{
		entry(557, "m1", state.EventStarted),
		entry(572, "m1", state.EventPauseSent),
		entry(595, "m1", state.EventDrained),
		entry(
			661,
			"m1",
			state.EventServerDown,
		),
		entry(1126, "m3", state.EventWritable),
		entry(1148, "m3", state.EventRoute),
		entry(1151, "m3", state.EventResumed),
	}
	retried := slices.Concat([]state.Entry{entry(100, "m1", state.EventPauseSent), entry(500, "m1", state.EventUndone)}, ours)

	for name, c := range map[string]struct {
		journal  []state.Entry
		from, to string
		want     map[stepName]int
	}{
		"pgbaton": {ours, "m1", "m3", map[stepName]int{stepAsked: 0, stepPause: 572, stepDrained: 595, stepDown: 661, stepLock: 926,
			stepPromoted: 1117, stepWritable: 1126, stepRoute: 1148, stepResumed: 1151, stepAll: 1228}},
		"the last attempt counts": {retried, "m1", "m3", map[stepName]int{stepAsked: 0, stepPause: 572, stepDrained: 595, stepDown: 661,
			stepLock:     926,
			stepPromoted: 1117, stepWritable: 1126, stepRoute: 1148, stepResumed: 1151, stepAll: 1228}},
		"runbook, from the logs alone": {nil, "m1", "m3", map[stepName]int{stepAsked: 0, stepPause: 578, stepDown: 654, stepLock: 926,
			stepPromoted: 1117, stepResumed: 1149, stepAll: 1228}},
		"restart": {nil, "m3", "m3", map[stepName]int{stepAsked: 0, stepPause: 578, stepPromoted: 1146, stepResumed: 1149, stepAll: 1228}},
	} {
		t.Run(name, func(t *testing.T) {
			got := map[stepName]int{}
			for _, s := range handoverSteps(asked, c.from, c.to, c.journal, events, moves, stall) {
				got[s.Name] = int(s.At.Sub(asked).Milliseconds())
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
	if log := merged(
		asked,
		ours,
		events,
	); !strings.Contains(
		log,
		"     572 ms  m1 journal     : pause_sent\n     578 ms  p1 pgbouncer   [1] LOG PAUSE command issued\n",
	) {
		t.Errorf("merged log:\n%s", log)
	}
}

func TestMissing(t *testing.T) {
	fine := machine{
		root:        true,
		mayMount:    true,
		dir:         "/lab",
		rootMade:    true,
		diskFree:    1 << 40,
		memoryFree:  1 << 34,
		debootstrap: true,
		apt:         true,
	}
	if err := fine.missing(); err != nil {
		t.Errorf("nothing is missing: %v", err)
	}
	for want, spoil := range map[string]func(*machine){
		"not root":                            func(m *machine) { m.root = false },
		"may not mount":                       func(m *machine) { m.mayMount = false },
		"/lab has 100 MB free":                func(m *machine) { m.diskFree = 100 * mib },
		"1000 MB free, the demo needs 2048":   func(m *machine) { m.rootMade, m.diskFree = false, 1000*mib },
		"too little memory: 500 MB":           func(m *machine) { m.memoryFree = 500 * mib },
		"debootstrap is missing, and there i": func(m *machine) { m.rootMade, m.debootstrap, m.apt = false, false, false },
	} {
		m := fine
		spoil(&m)
		p, ok := errors.AsType[*problem](m.missing())
		if !ok || !strings.Contains(p.what, want) || p.remedy == "" {
			t.Errorf("%q: %+v", want, p)
		}
	}
	for name, quiet := range map[string]func(*machine){
		"debootstrap is not needed twice": func(m *machine) { m.debootstrap, m.apt = false, false },
		"apt installs debootstrap":        func(m *machine) { m.rootMade, m.debootstrap = false, false },
		"memory is not known":             func(m *machine) { m.memoryFree = 0 },
	} {
		m := fine
		quiet(&m)
		if err := m.missing(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPlannedPackages(t *testing.T) {
	plan := `NOTE: This is only a simulation!
Inst libpsl5 (0.21.2-1.1+b1 Debian:13.1/stable [amd64])
Inst libc6 [2.41-1] (2.41-2 Debian:13.1/stable [amd64])
Inst debootstrap (1.0.141 Debian:13.1/stable [all])
Conf debootstrap (1.0.141 Debian:13.1/stable [all])
`
	if diff := cmp.Diff([]string{"libpsl5", "debootstrap"}, plannedPackages(plan)); diff != "" {
		t.Error(diff)
	}
}

func TestMountsBelow(t *testing.T) {
	table := `22 1 8:1 / / rw - ext4 /dev/sda1 rw
29 22 8:2 / /lab rw - ext4 /dev/sdb1 rw
30 29 0:20 / /lab/run/1 rw - tmpfs tmpfs rw
31 22 0:21 / /lab/trixie.building/proc rw - proc proc rw
32 31 0:22 / /lab/trixie.building/proc/sys/a\040b rw - tmpfs tmpfs rw
33 22 0:23 / /laboratory rw - tmpfs tmpfs rw
34 30 0:24 / /lab/run/1 rw - tmpfs tmpfs rw
`
	want := []string{"/lab/trixie.building/proc/sys/a b", "/lab/run/1", "/lab/trixie.building/proc", "/lab/run/1"}
	if diff := cmp.Diff(want, mountsBelow(table, "/lab")); diff != "" {
		t.Error(diff)
	}
}

func TestSparkline(t *testing.T) {
	if got := sparkline([]float64{800, 0, 400, 1, 800}); got != "█·▅▁█" {
		t.Errorf("got %s", got)
	}
	if got := sparkline([]float64{0, 0}); got != "··" {
		t.Errorf("nothing at all: got %s", got)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"up"}, {"-suite", "bookworm"}, {"-nosuch"}, {"down", "down"}} {
		var out bytes.Buffer
		if code := run(t.Context(), args, &out); code != exitUsage || !strings.Contains(out.String(), "Usage:") {
			t.Errorf("%v: exit %d, %s", args, code, &out)
		}
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces and mounts")
	}
}

func TestTakeDown(t *testing.T) {
	needRoot(t)
	dir := filepath.Join(t.TempDir(), "lab")
	t.Setenv("PGBATON_LAB_DIR", dir)
	for _, path := range []string{"trixie/usr/bin/x", "trixie.log", "trixie.lock", "sid.lock", "sid.building/proc/x", "run/3/log",
		"run/3.lock", runPrefix + "1/pgbaton"} {
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("x"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	// What a killed lab leaves.
	mounted := filepath.Join(dir, "run/4")
	if err := errors.Join(os.Mkdir(mounted, 0o755), syscall.Mount("tmpfs", mounted, "tmpfs", 0, "")); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Unmount(mounted, syscall.MNT_DETACH) }()

	var out bytes.Buffer
	held, err := os.OpenFile(filepath.Join(dir, "run/3.lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(held.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if code := run(
		t.Context(),
		[]string{"down"},
		&out,
	); code != exitFailed || !strings.Contains(out.String(), "a lab is in use") ||
		!strings.Contains(out.String(), "What to do:") {
		t.Errorf("with a lab in use: exit %d\n%s", code, &out)
	}
	if _, err := os.Stat(filepath.Join(dir, "trixie")); err != nil {
		t.Errorf("a root was removed under a lab: %v", err)
	}
	held.Close()

	out.Reset()
	foreign := filepath.Join(dir, "mine")
	if err := os.WriteFile(foreign, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if code := run(
		t.Context(),
		[]string{"down"},
		&out,
	); code != 0 || !strings.Contains(out.String(), "removed "+dir+"/trixie (") ||
		!strings.Contains(out.String(), "kept "+dir) {
		t.Errorf("exit %d\n%s", code, &out)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left: %v %v", entries, err)
	}
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	if code := run(t.Context(), []string{"down"}, &out); code != 0 {
		t.Errorf("the second time: exit %d\n%s", code, &out)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	out.Reset()
	if code := run(t.Context(), []string{"down"}, &out); code != 0 || !strings.Contains(out.String(), "nothing to remove") {
		t.Errorf("with nothing there: exit %d\n%s", code, &out)
	}
}

// TestTakeDownForeign: what somebody else can write to is not removed by root, and no package that is named there is purged.
func TestTakeDownForeign(t *testing.T) {
	needRoot(t)
	const nobody = 65534
	for name, spoil := range map[string]func(dir string) error{
		"folder of another user":       func(dir string) error { return os.Chown(dir, nobody, nobody) },
		"folder that others write to":  func(dir string) error { return os.Chmod(dir, 0o777) },
		"parent that others write to":  func(dir string) error { return os.Chmod(filepath.Dir(dir), 0o777) },
		"parent of another user":       func(dir string) error { return os.Chown(filepath.Dir(dir), nobody, nobody) },
		"sticky folder, others create": func(dir string) error { return os.Chmod(dir, 0o777|os.ModeSticky) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "parent", "lab")
			t.Setenv("PGBATON_LAB_DIR", dir)
			inside := filepath.Join(dir, "trixie", "x")
			if err := errors.Join(os.MkdirAll(filepath.Dir(inside), 0o755), os.WriteFile(inside, nil, 0o644), spoil(dir)); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if code := run(
				t.Context(),
				[]string{"down"},
				&out,
			); code != exitFailed ||
				!strings.Contains(out.String(), "others than root can change") {
				t.Errorf("exit %d\n%s", code, &out)
			}
			if _, err := os.Stat(inside); err != nil {
				t.Errorf("removed all the same: %v", err)
			}
		})
	}
}

// TestTakeDownForeignEntry: root's folder has an entry of another user.
func TestTakeDownForeignEntry(t *testing.T) {
	needRoot(t)
	dir := filepath.Join(t.TempDir(), "lab")
	t.Setenv("PGBATON_LAB_DIR", dir)
	foreign := filepath.Join(dir, "sid")
	if err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "trixie"), 0o755),
		os.Mkdir(foreign, 0o755),
		os.Chown(foreign, 65534, 65534),
	); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if code := run(
		t.Context(),
		[]string{"down"},
		&out,
	); code != 0 ||
		!strings.Contains(out.String(), "kept "+foreign+": it is not root's") {
		t.Errorf("exit %d\n%s", code, &out)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || entries[0].Name() != "sid" {
		t.Errorf("left: %v %v", entries, err)
	}
}

// TestDemo is the demo itself, on real servers.
func TestDemo(t *testing.T) {
	needRoot(t)
	dir := filepath.Join(t.TempDir(), "report")
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	var out bytes.Buffer
	code := run(ctx, []string{"-out", dir}, &out)
	t.Logf("\n%s", &out)
	if code != 0 {
		t.Fatalf("exit %d", code)
	}
	if strings.Contains(out.String(), "\r") || strings.Contains(out.String(), "\033") {
		t.Error("control characters, and this is no terminal")
	}
	data, err := os.ReadFile(filepath.Join(dir, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	ours := r.Ways[0]
	if ours.Errors != 0 || ours.LostWrites != "" || ours.Transactions == 0 || ours.Writes == 0 {
		t.Errorf("%+v", ours)
	}
	for _, name := range []string{"switchover", "restart"} {
		o := ours.operation(name)
		if o == nil {
			t.Fatalf("no %s", name)
		}
		var names []stepName
		for _, s := range o.Steps {
			names = append(names, s.Name)
		}
		for _, want := range []stepName{stepPause, stepDrained, stepDown, stepPromoted, stepWritable, stepRoute, stepResumed, stepAll} {
			if !slices.Contains(names, want) {
				t.Errorf("%s: the time line has no %q, only %q", name, want, names)
			}
		}
	}
	for _, w := range r.Ways {
		o := w.operation("switchover")
		switch {
		case o == nil || o.Floor == nil:
			t.Errorf("%s: no floor of the switchover", w.Name)
		case o.Floor.ShutdownMS <= 0 || o.Floor.LockMS <= 0 || o.Floor.PromotionMS <= 0 || o.Floor.total() > o.StallMS:
			t.Errorf("%s: floor %+v of a stall of %d ms", w.Name, *o.Floor, o.StallMS)
		}
	}
	for _, name := range []string{"report.txt", "throughput.svg", "throughput.png", "timeline-pgbaton-switchover.log",
		"timeline-pgbaton-restart.log", "timeline-by-the-runbook-switchover.log"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What was seen on Kubernetes becomes a report of the same form, without a way to compare with.
func TestKubeReport(t *testing.T) {
	began := time.Date(2026, 12, 1, 3, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	commits := make([]int, 120) // 12 s, 8 each tenth of a second
	for i := range commits {
		if i < 51 || i >= 70 {
			commits[i] = 8
		}
	}
	d := seen.Demo{Versions: map[string]string{"Kubernetes": "1.34.4"}, Load: "some", Clients: seen.Report{Acknowledged: 808, Began: began,
		Commits: commits, Clients: []seen.Client{{Gaps: []seen.Gap{{From: at(5100), To: at(7000)}}}}},
		Events: []seen.Event{{Name: "pod's deletion", From: "cluster-0", To: "cluster-1", Asked: at(3000), Ended: at(11000), Lines: []seen.Line{
			{At: at(2000), Source: "p-1 pgbouncer", Text: "LOG RESUME command issued"}, // an earlier one
			{At: at(5100), Source: "p-1 pgbouncer", Text: "LOG PAUSE command issued"},
			{At: at(5110), Source: "p-2 pgbouncer", Text: "LOG PAUSE command issued"},
			{At: at(5300), Source: "cluster-0 postgresql", Text: "LOG:  database system is shut down"},
			{At: at(6800), Source: "p-2 pgbouncer", Text: "LOG RESUME command issued"},
			{At: at(6900), Source: "p-1 pgbouncer", Text: "LOG RESUME command issued"},
		}}}}
	data, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	file, dir := filepath.Join(t.TempDir(), "demo.json"), t.TempDir()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if code := run(t.Context(), []string{"-out", dir, "kube", file}, &out); code != 0 {
		t.Fatalf("exit %d: %s", code, &out)
	}
	for _, want := range []string{"Programs: Kubernetes 1.34.4", "longest stall: pod's deletion", "1.90 s"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, &out)
		}
	}
	for _, row := range []string{`asked for +-2100\n`, `server down +200\n`, `resumed +1800\n`, `last client writes again +1900\n`} {
		if !regexp.MustCompile(row).MatchString(out.String()) {
			t.Errorf("no row %s in\n%s", row, &out)
		}
	}
	for _, name := range []string{"report.txt", "report.json", "throughput.svg", "throughput.png", "timeline-pgbaton-pods-deletion.log"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	d.Clients.Lost = 1
	if f := onKubernetes(d).failure(); !strings.Contains(f, "writes were lost") {
		t.Errorf("%q", f)
	}
}
