package maintenance

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/plan"
)

// maxStepTime is the longest that may be asked for: of a day with nobody looking nothing is known.
const maxStepTime = 24 * time.Hour

// AskSwitchover is the request of a body. What is wrong with it is named by the body's fields. Where the body asks to resume there is no
// request: see [Resume].
func AskSwitchover(b api.SwitchoverBody) (Request, []api.FieldError) {
	var wrong asked
	if b.Resume && b != (api.SwitchoverBody{Resume: true}) {
		wrong.add("resume", "goes on as the run was asked for: nothing else may be given")
	}
	r := Request{Kind: api.KindSwitchover, FromHere: b.FromHere}
	if b.Prefer != "" && b.Candidate != "" {
		wrong.add("prefer", "is for when no candidate is named")
	}
	if r.Prefer = b.Prefer; strings.HasPrefix(b.Prefer, "=") {
		wrong.add("prefer", "names no label: write NAME or NAME=VALUE")
	}
	r.Switchover = plan.SwitchoverOptions{Candidate: b.Candidate, MaxReplayLag: wrong.limit(b.MaxReplayLag),
		IfLagging: plan.Policy(b.IfLagging)}
	if b.IfLagging != "" && r.Switchover.IfLagging != plan.PolicyWait && r.Switchover.IfLagging != plan.PolicyRefuse {
		wrong.add("ifLagging", "is wait or refuse")
	}
	if b.At != "" {
		at, err := time.Parse(time.RFC3339, b.At)
		switch {
		case err != nil:
			wrong.add("at", "is not a time as 2026-12-01T03:00:00Z")
		case time.Until(at) <= 0:
			wrong.add("at", "is over")
		}
		r.At = at
	}
	wrong.times(&r, b.MaxTransaction, b.StepTimeout)
	return r, wrong
}

// AskRestart is the request of a body, as [AskSwitchover] does it.
func AskRestart(b api.RestartBody) (Request, []api.FieldError) {
	var wrong asked
	some := len(b.Members) > 0 || b.Pending || b.OlderThan != "" || b.Rolling
	more := some || b.KeepLeader || b.SkipChecks || b.Candidate+b.MaxReplayLag+b.IfLagging+b.MaxTransaction+b.StepTimeout+b.WarmUp != ""
	switch {
	case b.Resume && more:
		wrong.add("resume", "goes on as the run was asked for: nothing else may be given")
	case !b.Resume && !some:
		wrong.add("members", "nothing says which members to restart: name them, or ask for pending, olderThan or rolling")
	case b.KeepLeader && b.Candidate != "":
		wrong.add("candidate", "needs a switchover, and the primary is to stay where it is")
	}
	r := Request{Kind: api.KindRestart, WarmUp: b.WarmUp}
	r.Restart = plan.RestartOptions{Members: b.Members, Pending: b.Pending, Rolling: b.Rolling, KeepLeader: b.KeepLeader,
		Candidate: b.Candidate, MaxReplayLag: wrong.limit(b.MaxReplayLag), IfLagging: plan.Policy(b.IfLagging)}
	switch r.Restart.IfLagging {
	case "", plan.PolicyWait, plan.PolicyInPlace, plan.PolicyRefuse:
	default:
		wrong.add("ifLagging", "is wait, in-place or refuse")
	}
	if b.OlderThan != "" {
		version, err := plan.ParseVersion(b.OlderThan)
		if err != nil {
			wrong.add("olderThan", err.Error())
		}
		r.Restart.OlderThan = version
	}
	wrong.times(&r, b.MaxTransaction, b.StepTimeout)
	return r, wrong
}

// asked is what is wrong with a body.
type asked []api.FieldError

func (a *asked) add(field, message string) {
	*a = append(*a, api.FieldError{Location: field, Message: message})
}

func (a *asked) limit(text string) plan.Limit {
	if text == "" {
		return plan.Limit{}
	}
	limit, err := plan.ParseLimit(text)
	if err != nil {
		a.add("maxReplayLag", "is neither a size (64MB) nor a time (30s)")
	}
	return limit
}

func (a *asked) times(r *Request, maxTransaction, stepTimeout string) {
	for _, x := range []struct {
		text, field string
		into        *time.Duration
	}{{maxTransaction, "maxTransaction", &r.MaxTransaction}, {stepTimeout, "stepTimeout", &r.StepTimeout}} {
		if x.text == "" {
			continue
		}
		d, err := config.ParseDuration(x.field, x.text)
		switch {
		case err != nil:
			a.add(x.field, "is not a duration with a unit, longer than nothing: write 500ms, 15s or 1m30s")
		case d > maxStepTime:
			a.add(x.field, fmt.Sprintf("is longer than %s", maxStepTime))
		}
		*x.into = d
	}
}
