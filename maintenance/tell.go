package maintenance

import (
	"slices"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/plan"
)

// send tells whoever watches.
func (x *run) send(e api.ClusterEvent) {
	e.Time, e.Run = time.Now(), x.record.ID
	if x.tell != nil {
		x.tell(e)
	}
}

// note is something worth a line.
func (x *run) note(text string) {
	x.log.Info(text)
	x.send(api.ClusterEvent{Event: api.EventNote, Step: x.present(), Text: text})
}

// live is how it stands now. meter may be nil.
func (x *run) live(name, waits string, meter *meter) {
	report := meter.live()
	report.Member, report.Waits = name, waits
	if p, ok := x.now.Member(name); ok && p.Replay.Known {
		report.LagBytes = p.Replay.Bytes
	}
	x.send(api.ClusterEvent{Event: api.EventLive, Step: x.present(), Live: &report})
}

// present is the number of the step that is at work; 0: none is.
func (x *run) present() int {
	if x.record.At == nil {
		return 0
	}
	return x.record.At.Number
}

// announce tells the plan before anything is done.
func (x *run) announce(p plan.Plan) {
	if p.Choice.Candidate != "" {
		x.choice = &p.Choice
	}
	text := p.Why
	for _, w := range p.Waits {
		text = "first it waits: " + w.For
		break
	}
	x.send(api.ClusterEvent{Event: api.EventPlan, Text: text, Plan: x.steps(p.Steps)})
}

// changed tells that a step has begun or ended, with the plan as it is now.
func (x *run) changed(text string) {
	x.log.Info(text)
	number := 0
	if n := len(x.record.Steps); n > 0 {
		number = x.record.Steps[n-1].Number
	}
	x.send(api.ClusterEvent{Event: api.EventStep, Step: number, Text: text, Plan: x.steps(x.forecast())})
}

// forecast is what is left to do after the present step, as far as it can be told.
func (x *run) forecast() []plan.Step {
	done := slices.Clone(x.record.Done)
	if at := x.record.At; at != nil {
		done = append(done, plan.Done{Step: at.Step, Outcome: plan.OutcomeDone, Started: at.Started, Timeline: at.Timeline})
	}
	p, err := plan.Forecast(x.now.View, done, x.record.Request.options())
	if err != nil {
		return nil // Next says so when its turn comes
	}
	return p.Steps
}

// steps are those that were begun, and those that are planned.
func (x *run) steps(planned []plan.Step) []api.StepReport {
	all := slices.Clone(x.record.Steps)
	for _, s := range planned {
		all = append(all, api.StepReport{Number: len(all) + 1, Kind: s.Kind, Member: s.Member, Candidate: s.Candidate, Why: s.Why,
			State: api.StepPlanned})
	}
	if all == nil {
		all = []api.StepReport{}
	}
	return all
}
