package operation

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
)

// TestJudgeRun: what an interrupted run of planned maintenance has come to is what its own file says.
func TestJudgeRun(t *testing.T) {
	steps := []api.StepReport{{Number: 1, Kind: "restart", Member: "m3", State: api.StepDone}, {Number: 2, Kind: "switchover", Member: "m1",
		State: api.StepRunning}}
	ended := func(code int, state string) api.ClusterReport {
		return api.ClusterReport{Run: "r", State: state, Code: code, Decision: "so it ended", Steps: steps}
	}
	cut := api.ClusterReport{Run: "r", State: api.StepUnknown, Steps: steps}
	for name, test := range map[string]struct {
		run     runView
		state   string
		final   bool
		failure string
		text    string
	}{
		"no file":            {runView{err: fmt.Errorf("run r: %w", os.ErrNotExist)}, api.Failed, true, "", "before anything was done"},
		"a file of nonsense": {runView{err: errors.New("not JSON")}, api.Unknown, false, "", "cannot be read"},
		"cut off":            {runView{report: cut, newest: true}, api.Unknown, false, "", "cut off in step 2 (switchover m1, running): POST"},
		"cut off at once":    {runView{newest: true}, api.Unknown, false, "", "cut off before its first step"},
		"gone on with":       {runView{report: cut, running: true, newest: true}, api.Unknown, false, "", "is being gone on with"},
		"another came later": {runView{report: cut}, api.Unknown, true, "", "cannot be gone on with any more in step 2"},
		"done by a person":   {runView{report: ended(member.Done, api.StepDone), over: true}, api.Succeeded, true, "", "so it ended"},
		"failed": {runView{report: ended(member.Failed, api.StepFailed), over: true, newest: true}, api.Failed, true, MaintenanceFailed,
			"so it ended"},
		"stopped": {runView{report: ended(member.Failed, api.StepStopped), over: true, newest: true}, api.Failed, true, Stopped, "so it ended"},
	} {
		got := judgeRun(Operation{ID: "x", Kind: api.KindRestart, Run: "r"}, view{run: test.run})
		if got.state != test.state || got.final != test.final || !strings.Contains(got.text, test.text) {
			t.Errorf("%s: %+v", name, got)
		}
		if test.run.over && (got.outcome == nil || got.outcome.Cluster.Decision != "so it ended") {
			t.Errorf("%s: the report is not kept: %+v", name, got.outcome)
		}
		if test.failure != "" && (got.failure == nil || got.failure.Name != test.failure) {
			t.Errorf("%s: %+v", name, got.failure)
		}
	}
}

// TestJudgeCheck: nothing was changed, so it may be asked for again.
func TestJudgeCheck(t *testing.T) {
	if got := judgeCheck(Operation{}, view{}); got.state != api.Failed || !got.final {
		t.Errorf("%+v", got)
	}
}

// TestClusterOutcomeIsBounded: a report of any size does not make the file of the operations too large, and its maps are cut, too.
func TestClusterOutcomeIsBounded(t *testing.T) {
	report := &api.ClusterReport{Decision: "done", Choice: &api.ChoiceMade{PassedOver: map[string]string{}}}
	for i := range 300 {
		report.Steps = append(report.Steps, api.StepReport{Number: i, Text: strings.Repeat("x", 1000)})
		report.Choice.PassedOver[fmt.Sprint(i)] = strings.Repeat("y", 1000)
	}
	kept := bounded(&api.Outcome{Decision: "done", Cluster: report})
	if kept.Cluster == nil || len(kept.Cluster.Steps) == 0 || len(kept.Cluster.Choice.PassedOver) > 200 || kept.Cluster.Decision != "done" {
		t.Errorf("%d steps, %d passed over", len(kept.Cluster.Steps), len(kept.Cluster.Choice.PassedOver))
	}
	for member, why := range kept.Cluster.Choice.PassedOver {
		if len(why) > 501 {
			t.Errorf("%s: %d bytes", member, len(why))
		}
	}
}
