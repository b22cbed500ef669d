package plan_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/pgbaton/pgbaton/plan"
)

// TestMachine: every state with every event. "." is an event that cannot happen there.
func TestMachine(t *testing.T) {
	const table = `
           lock     refuse  step     done     fail    nothing  unknown   complete  stop      abort   good    bad    resume
planned    choosing refused .        .        .       .        .         .         refused   refused .       .      planned
choosing   .        failing stepping .        failing .        .         finishing stopping  stopped .       .      choosing
stepping   .        failing .        choosing failing .        following .         last-step aborted .       .      following
following  .        .       .        choosing failing choosing failing   .         last-look aborted .       .      following
last-step  .        failing .        stopping failing .        last-look .         last-step aborted .       .      following
last-look  .        .       .        stopping failing stopping failing   .         last-look aborted .       .      following
finishing  .        .       .        .        .       .        .         .         finishing stopped done    failed choosing
stopping   .        .       .        .        .       .        .         .         stopping  stopped stopped failed choosing
failing    .        .       .        .        .       .        .         .         failing   failed  failed  failed following
done       .        .       .        .        .       .        .         .         .         .       .       .      .
stopped    .        .       .        .        .       .        .         .         .         .       .       .      choosing
failed     .        .       .        .        .       .        .         .         .         .       .       .      following
refused    .        .       .        .        .       .        .         .         .         .       .       .      .
aborted    .        .       .        .        .       .        .         .         .         .       .       .      following
`
	lines := strings.Split(strings.TrimSpace(table), "\n")
	events := strings.Fields(lines[0])
	for _, line := range lines[1:] {
		cells := strings.Fields(line)
		from := plan.State(cells[0])
		if len(cells) != len(events)+1 {
			t.Fatalf("%d cells: %s", len(cells), line)
		}
		for i, event := range events {
			got, err := from.On(plan.Event(event))
			switch want := cells[i+1]; {
			case want == "." && err == nil:
				t.Errorf("%s, %s: %s, wanted an error", from, event, got)
			case want == "." && got != from:
				t.Errorf("%s, %s: the state moved to %s with an error", from, event, got)
			case want != "." && (err != nil || string(got) != want):
				t.Errorf("%s, %s: %s, %v; wanted %s", from, event, got, err, want)
			}
		}
		if _, err := from.On("no such event"); err == nil {
			t.Errorf("%s takes an event that there is not", from)
		}
		over := slices.Contains([]string{"done", "stopped", "failed", "refused", "aborted"}, cells[0])
		if from.Over() != over {
			t.Errorf("%s over: %v", from, from.Over())
		}
		if from.Resumable() == slices.Contains([]string{"done", "refused"}, cells[0]) {
			t.Errorf("%s resumable: %v", from, from.Resumable())
		}
	}
	if _, err := plan.State("no such state").On(plan.EventLock); err == nil {
		t.Error("a state that there is not takes an event")
	}
}
