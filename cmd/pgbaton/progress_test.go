package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgbaton/pgbaton/api"
)

// story is the events of a rolling restart, up to its end.
func story() []api.ClusterEvent {
	began := time.Now()
	steps := []api.StepReport{
		{Number: 1, Kind: "restart", Member: "m3", Why: "replica, most to replay", State: api.StepPlanned},
		{Number: 2, Kind: "switchover", Member: "m1", Why: "the primary waits for a restart", State: api.StepPlanned},
		{Number: 3, Kind: "restart", Member: "m1", Why: "the old primary", State: api.StepPlanned},
	}
	at := func(step int, state string, change func(*api.StepReport)) api.ClusterEvent {
		steps = append([]api.StepReport{}, steps...)
		steps[step-1].State = state
		if change != nil {
			change(&steps[step-1])
		}
		return api.ClusterEvent{Time: began, Run: "r1", Event: api.EventStep, Step: step, Plan: steps}
	}
	begin := func(s *api.StepReport) { s.Began = began }
	live := func(step int, l api.LiveReport) api.ClusterEvent {
		return api.ClusterEvent{Time: began, Run: "r1", Event: api.EventLive, Step: step, Live: &l}
	}
	first := api.ClusterEvent{Time: began, Run: "r1", Event: api.EventPlan, Plan: steps}
	return []api.ClusterEvent{
		first,
		at(1, api.StepRunning, begin),
		live(1, api.LiveReport{Member: "m3", Waits: "is to replay", LagBytes: 3 << 20, Waiting: 0}),
		at(1, api.StepDone, func(s *api.StepReport) { s.TookSeconds, s.Text, s.Cost = 12.3, "streams", &api.Cost{} }),
		at(2, api.StepRunning, func(s *api.StepReport) { s.Began, s.Candidate = began, "m2" }),
		live(2, api.LiveReport{Member: "m2", Waits: "is to be the primary", Paused: 1, Waiting: 12, MaxWait: .43}),
		at(2, api.StepDone, func(s *api.StepReport) {
			s.TookSeconds, s.Cost = 2.1, &api.Cost{StallSeconds: .61, Waiting: 12, PausedSeconds: .6}
		}),
		{Time: began, Run: "r1", Event: api.EventNote, Text: "m1 is a replica now"},
		at(3, api.StepRunning, begin),
		at(3, api.StepFailed, func(s *api.StepReport) { s.TookSeconds, s.Text = 60, "m1 does not come back:\nlook at its log" }),
		{Time: began, Run: "r1", Event: api.EventEnd, Text: "1 of 3 steps failed"},
	}
}

// TestListOnATerminal: the plan is drawn in place, line by line, and a log line meanwhile does not spoil it.
func TestListOnATerminal(t *testing.T) {
	x := openScreen(t, 100, 30)
	diverted := &diversion{home: x.slave}
	log := slog.New(slog.NewTextHandler(diverted, nil))
	l := newList(x.slave, diverted)
	wants := []string{
		"[ ] 3  restart m1", "[>] 1  restart m3", "m3: is to replay, 3072 kB behind, 0 clients waiting",
		"s  done, no client waited",
		"[>] 2  switchover m1 → m2", "m2: is to be the primary, 1 pooler paused, 12 clients waiting (longest 400ms)",
		"[x] 2  switchover m1 → m2      2.1s  done, 12 clients waited, 610ms at most", "m1 is a replica now", "[>] 3  restart m1",
		"[!] 3  restart m1              1m0s  m1 does not come back: look at its log", "",
	}
	for i, e := range story() {
		if i == 2 {
			log.Info("a line of the log")
		}
		l.event(e)
		if wants[i] != "" {
			x.until(wants[i])
		}
	}
	l.end()
	log.Info("after the end")
	x.close()
	got := regexp.MustCompile(`time=\S+ `).ReplaceAllString(x.text(), "")
	want := `level=INFO msg="a line of the log"
m1 is a replica now
[x] 1  restart m3             12.3s  done, no client waited
[x] 2  switchover m1 → m2      2.1s  done, 12 clients waited, 610ms at most
[!] 3  restart m1              1m0s  m1 does not come back: look at its log
level=INFO msg="after the end"`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the screen (-want +got):\n%s", diff)
	}
}

// TestListOnASmallTerminal: a line that does not fit is cut, or the list would run over itself.
func TestListOnASmallTerminal(t *testing.T) {
	x := openScreen(t, 40, 30)
	l := newList(x.slave, &diversion{home: x.slave})
	for _, e := range story() {
		l.event(e)
	}
	l.end()
	x.close()
	for line := range strings.Lines(x.text()) {
		if n := len([]rune(strings.TrimSpace(line))); n > 40 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	if !strings.Contains(x.text(), "[!] 3  restart m1") || strings.Count(x.text(), "[") != 3 {
		t.Errorf("the screen:\n%s", x.text())
	}
}

// TestListChanges: a plan may get longer or shorter when the cluster is looked at anew.
func TestListChanges(t *testing.T) {
	x := openScreen(t, 80, 30)
	l := newList(x.slave, &diversion{home: x.slave})
	of := func(n int) api.ClusterEvent {
		e := api.ClusterEvent{Event: api.EventPlan}
		for i := range n {
			e.Plan = append(e.Plan, api.StepReport{Number: i + 1, Kind: "restart", Member: fmt.Sprintf("m%d", i+1), State: api.StepPlanned})
		}
		return e
	}
	l.event(of(2))
	x.until("[ ] 2  restart m2")
	l.event(of(4))
	x.until("[ ] 4  restart m4")
	l.event(of(1))
	l.end()
	x.close()
	if got := x.text(); got != "[ ] 1  restart m1" {
		t.Errorf("the screen:\n%s", got)
	}
}

// TestListBeforeAPlan: a run that is refused has none, and what is said of it is seen all the same.
func TestListBeforeAPlan(t *testing.T) {
	x := openScreen(t, 80, 30)
	diverted := &diversion{home: x.slave}
	l := newList(x.slave, diverted)
	l.note("stopping")
	fmt.Fprintln(diverted, "a line")
	l.end()
	x.close()
	if got := x.text(); got != "stopping\na line" {
		t.Errorf("the screen:\n%s", got)
	}
}

// TestLogProgress: a line an event, and samples only now and then.
func TestLogProgress(t *testing.T) {
	var out bytes.Buffer
	p := &logProgress{log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))}
	events := story()
	again := events[2] // the same wait, a second later, and then ten
	again.Time = again.Time.Add(time.Second)
	later := again
	later.Time = later.Time.Add(liveEvery)
	events = append(events[:3:3], append([]api.ClusterEvent{again, later}, events[3:]...)...)
	for _, e := range events {
		p.event(e)
	}
	p.note("stops after this step")
	p.end()
	waiting := `level=INFO msg=waiting run=r1 step=1 member=m3 for="is to replay" lag_bytes=3145728 paused_poolers=0 waiting_clients=0 longest=0s
`
	want := `level=INFO msg=planned run=r1 step=1 do="restart m3" state=planned why="replica, most to replay"
level=INFO msg=planned run=r1 step=2 do="switchover m1 → the candidate that is best then" state=planned why="the primary waits for a restart"
level=INFO msg=planned run=r1 step=3 do="restart m1" state=planned why="the old primary"
level=INFO msg=step run=r1 step=1 of=3 do="restart m3" state=running
` + waiting + waiting + `level=INFO msg=step run=r1 step=1 of=3 do="restart m3" state=done took=12.3s text=streams stall=0s waiting_clients=0 client_errors=0
level=INFO msg=step run=r1 step=2 of=3 do="switchover m1 → m2" state=running
level=INFO msg=waiting run=r1 step=2 member=m2 for="is to be the primary" lag_bytes=0 paused_poolers=1 waiting_clients=12 longest=430ms
level=INFO msg=step run=r1 step=2 of=3 do="switchover m1 → m2" state=done took=2.1s stall=610ms waiting_clients=12 client_errors=0
level=INFO msg="m1 is a replica now" run=r1 event=note
level=INFO msg=step run=r1 step=3 of=3 do="restart m1" state=running
level=ERROR msg=step run=r1 step=3 of=3 do="restart m1" state=failed took=1m0s text="m1 does not come back: look at its log"
level=INFO msg="1 of 3 steps failed" run=r1 event=end
level=WARN msg="stops after this step"
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("the log (-want +got):\n%s", diff)
	}
}

// TestJSONProgress: a line an event, which reads back as what was told.
func TestJSONProgress(t *testing.T) {
	var out, log bytes.Buffer
	p := &jsonProgress{out: json.NewEncoder(&out), log: slog.New(slog.NewTextHandler(&log, nil))}
	events := story()
	for _, e := range events {
		p.event(e)
	}
	p.note("stops after this step")
	decoder := json.NewDecoder(&out)
	for i, want := range events {
		var got api.ClusterEvent
		if err := decoder.Decode(&got); err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("event %d (-want +got):\n%s", i, diff)
		}
	}
	if decoder.More() {
		t.Error("there is more than the events")
	}
	if !strings.Contains(log.String(), "stops after this step") {
		t.Errorf("the log: %s", log.String())
	}
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 10239: "10239 B", 10240: "10 kB", 3 << 20: "3072 kB", 16 << 20: "16 MB", 1 << 40: "1024 GB",
		1 << 62: "4194304 TB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
