package maintenance

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/plan"
)

func TestAskSwitchover(t *testing.T) {
	at := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	r, wrong := AskSwitchover(api.SwitchoverBody{Candidate: "m2", FromHere: true, At: at.Format(time.RFC3339), MaxReplayLag: "1MB",
		IfLagging: "refuse", MaxTransaction: "5s", StepTimeout: "2m"})
	want := Request{Kind: api.KindSwitchover, FromHere: true, At: at, MaxTransaction: 5 * time.Second, StepTimeout: 2 * time.Minute,
		Switchover: plan.SwitchoverOptions{Candidate: "m2", MaxReplayLag: plan.Limit{Bytes: 1 << 20}, IfLagging: plan.PolicyRefuse}}
	if diff := cmp.Diff(want, r); diff != "" || wrong != nil {
		t.Errorf("%v\n%s", wrong, diff)
	}
	for body, want := range map[api.SwitchoverBody]string{
		{}:                                "",
		{Resume: true}:                    "",
		{Resume: true, Candidate: "m2"}:   "resume",
		{Prefer: "zone=a"}:                "",
		{Prefer: "zone", Candidate: "m2"}: "prefer",
		{Prefer: "=a"}:                    "prefer",
		{At: "tomorrow"}:                  "at",
		{At: "2020-01-01T00:00:00Z"}:      "at",
		{IfLagging: "in-place"}:           "ifLagging",
		{MaxReplayLag: "much"}:            "maxReplayLag",
		{MaxTransaction: "5"}:             "maxTransaction",
		{StepTimeout: "25h"}:              "stepTimeout",
		{StepTimeout: "-1s", At: "never"}: "at stepTimeout",
	} {
		if _, wrong := AskSwitchover(body); fieldsOf(wrong) != want {
			t.Errorf("%+v: %v, want %q", body, wrong, want)
		}
	}
}

func TestAskRestart(t *testing.T) {
	r, wrong := AskRestart(api.RestartBody{Members: []string{"m1"}, Pending: true, OlderThan: "17.6", Rolling: true, KeepLeader: true,
		MaxReplayLag: "30s", IfLagging: "in-place", MaxTransaction: "5s", StepTimeout: "2m", WarmUp: "autoprewarm"})
	want := Request{Kind: api.KindRestart, MaxTransaction: 5 * time.Second, StepTimeout: 2 * time.Minute, WarmUp: "autoprewarm",
		Restart: plan.RestartOptions{Members: []string{"m1"}, Pending: true, OlderThan: 170006, Rolling: true, KeepLeader: true,
			MaxReplayLag: plan.Limit{Age: 30 * time.Second}, IfLagging: plan.PolicyInPlace}}
	if diff := cmp.Diff(want, r); diff != "" || wrong != nil {
		t.Errorf("%v\n%s", wrong, diff)
	}
	for _, test := range []struct {
		body api.RestartBody
		want string
	}{
		{api.RestartBody{}, "members"},
		{api.RestartBody{KeepLeader: true}, "members"},
		{api.RestartBody{Pending: true}, ""},
		{api.RestartBody{Resume: true}, ""},
		{api.RestartBody{Resume: true, Rolling: true}, "resume"},
		{api.RestartBody{Resume: true, StepTimeout: "1m"}, "resume"},
		{api.RestartBody{Rolling: true, OlderThan: "seventeen"}, "olderThan"},
		{api.RestartBody{Rolling: true, IfLagging: "never"}, "ifLagging"},
		{api.RestartBody{Rolling: true, KeepLeader: true, Candidate: "m2"}, "candidate"},
	} {
		if _, wrong := AskRestart(test.body); fieldsOf(wrong) != test.want {
			t.Errorf("%+v: %v, want %q", test.body, wrong, test.want)
		}
	}
}

func fieldsOf(wrong []api.FieldError) string {
	var fields []string
	for _, w := range wrong {
		fields = append(fields, w.Location)
	}
	return strings.Join(fields, " ")
}
