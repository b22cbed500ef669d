package maintenance

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/plan"
)

// TestSettled: a resumed run knows also of its steps that failed, so a switchover that failed after it had moved the leader is not followed by
// another one.
func TestSettled(t *testing.T) {
	restart := plan.Step{Kind: plan.KindRestart, Member: "m2", Why: "a replica"}
	switchover := plan.Step{Kind: plan.KindSwitchover, Member: "m1", Candidate: "m2"}
	got := settled([]api.StepReport{
		{Kind: restart.Kind, Member: restart.Member, Why: restart.Why, State: api.StepDone},
		{Kind: switchover.Kind, Member: switchover.Member, Candidate: switchover.Candidate, State: api.StepFailed},
		{Kind: restart.Kind, Member: "m3", State: api.StepUnknown}, // is asked about first, and settled then
	})
	want := []plan.Done{{Step: restart, Outcome: plan.OutcomeDone}, {Step: switchover, Outcome: plan.OutcomeFailed}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
