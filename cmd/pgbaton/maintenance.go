package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/maintenance"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/plan"
)

// maintain asks, does, and shows a run of planned maintenance.
func (p *program) maintain(command string, r maintenance.Request, f runFlags) error {
	// A terminal or a pipe that is gone is no reason to leave a cluster half done: see untilSecondSignal.
	signal.Ignore(syscall.SIGPIPE)
	p.diverted = &diversion{home: p.stderr}
	p.stderr = p.diverted
	m, err := p.runtime(f.DryRun)
	if err != nil {
		return err
	}
	// A run that was killed was agreed to when it was asked for.
	if !f.Resume {
		report := p.agree(m, r, f)
		if report != nil {
			return p.reportRun(*report, f.Output)
		}
	} else if f.DryRun {
		return p.reportRun(wouldResume(m, r.Kind), f.Output)
	}
	shown := p.progressOf(command, f.Output)
	ended := make(chan struct{})
	told := make(chan struct{})
	go func() {
		defer close(told)
		p.tellSignals(shown, ended)
	}()
	r.Stop = p.stopped
	var report api.ClusterReport
	if f.Resume {
		report = maintenance.Resume(p.ctx, m, p.stopped, shown.event)
	} else {
		report = maintenance.Run(p.ctx, m, r, shown.event)
	}
	close(ended)
	<-told
	shown.end()
	return p.reportRun(report, f.Output)
}

// tellSignals says what a signal has come to, until the run has ended.
func (p *program) tellSignals(shown progress, ended <-chan struct{}) {
	select {
	case <-p.stopped:
		shown.note("stopping after the step that is under way; once more stops at once, wherever that leaves the cluster")
	case <-ended:
		return
	}
	select {
	case <-p.ctx.Done():
		shown.note("stopping at once; Patroni finishes what it was asked to do")
	case <-ended:
	}
}

// agree shows what would be done, and has a person agree to it; nil: go on. Else nothing was done, and the report says why.
func (p *program) agree(m *member.Member, r maintenance.Request, f runFlags) *api.ClusterReport {
	report := api.ClusterReport{Kind: r.Kind, Member: m.Name(), State: api.StepPlanned, Steps: []api.StepReport{}}
	refuse := func(code int, id, why string) *api.ClusterReport {
		report.State, report.Code, report.Refusal, report.Decision = api.StepFailed, code, id, why
		return &report
	}
	planned, err := maintenance.Plan(p.ctx, m, r)
	if err != nil {
		id := ""
		if refusal, ok := errors.AsType[*plan.Refusal](err); ok {
			id = refusal.ID
		}
		return refuse(maintenance.Code(err), id, err.Error())
	}
	for i, s := range planned.Steps {
		report.Steps = append(
			report.Steps,
			api.StepReport{Number: i + 1, Kind: s.Kind, Member: s.Member, Candidate: s.Candidate, Why: s.Why,
				State: api.StepPlanned},
		)
	}
	if c := planned.Choice; c.Candidate != "" || len(c.PassedOver) > 0 {
		report.Choice = &api.ChoiceMade{Candidate: c.Candidate, Why: c.Why, PassedOver: c.PassedOver}
	}
	if f.Output != "json" {
		p.planTable(report, planned)
	}
	if !f.SkipChecks {
		if found := maintenance.Preflight(p.ctx, m, r, planned); len(found) > 0 {
			if f.Output != "json" {
				p.page().findings(found)
			}
			return refuse(member.Refused, found[0].ID, maintenance.SpoiledText(found)+"; --skip-checks goes on all the same")
		}
	}
	switch {
	case f.DryRun:
		report.Decision = "nothing was done: " + count(len(report.Steps), "step") + " would be"
		return &report
	case len(report.Steps) == 0 || f.Yes:
		return nil
	case f.Output == "json" || !isTerminal(p.stdin) || !isTerminal(p.stdout):
		return refuse(member.Refused, "not-confirmed", "nobody can be asked here: --yes goes on without; nothing was done")
	}
	if !p.ask("Do it? [y/N] ") {
		return refuse(member.Refused, "not-confirmed", "not agreed to: nothing was done")
	}
	return nil
}

// planTable shows a plan before it is agreed to.
func (p *program) planTable(r api.ClusterReport, planned plan.Plan) {
	var rows [][]cell
	for _, s := range r.Steps {
		rows = append(rows, cells(fmt.Sprint(s.Number), stepName(s), s.Why))
	}
	page := p.page()
	if len(rows) > 0 {
		page.table([]string{"STEP", "DOES", "WHY"}, rows)
	}
	for _, x := range planned.Waits {
		page.line("", "it would wait: ", x.For)
	}
	if len(r.Steps) == 0 {
		page.line("", "nothing to do: ", planned.Why)
	}
}

// ask reads one line of the terminal. A signal is a no.
func (p *program) ask(question string) bool {
	fmt.Fprint(p.stdout, question)
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(io.LimitReader(p.stdin, 100)).ReadString('\n')
		line <- text
	}()
	select {
	case text := <-line:
		switch strings.ToLower(strings.TrimSpace(text)) {
		case "y", "yes":
			return true
		}
	case <-p.stopped:
		fmt.Fprintln(p.stdout)
	}
	return false
}

// wouldResume says which run would be gone on with.
func wouldResume(m *member.Member, kind string) api.ClusterReport {
	id := maintenance.Resumable(m)
	if id != "" {
		if r, _, _, err := maintenance.Recorded(m, id); err == nil {
			r.Code, r.Decision = member.Done, fmt.Sprintf("nothing was done: run %s would be gone on with, after a look at the cluster", id)
			return r
		}
	}
	return api.ClusterReport{Kind: kind, Member: m.Name(), State: api.StepFailed, Code: member.Refused, Steps: []api.StepReport{},
		Decision: "no run of this member was cut off: there is nothing to resume"}
}

// reportRun is the summary of a run: what each step cost the clients, and where the cluster stands now.
func (p *program) reportRun(r api.ClusterReport, output string) error {
	p.code = r.Code
	if output == "json" {
		return p.printJSON(r, false)
	}
	if r.State != api.StepPlanned {
		p.runTable(r)
	}
	p.decision(r.Code, r.Decision)
	return nil
}

func (p *program) runTable(r api.ClusterReport) {
	var rows [][]cell
	for _, s := range r.Steps {
		stall, waiting, errs := "", "", ""
		if c := s.Cost; c != nil {
			stall, waiting, errs = seconds(c.StallSeconds), fmt.Sprint(c.Waiting), fmt.Sprint(c.Errors)
			if c.Errors < 0 {
				errs = "?"
			}
			if c.Gaps > 0 {
				stall += fmt.Sprintf(" (%s missed)", count(c.Gaps, "look"))
			}
		}
		took := ""
		if s.TookSeconds > 0 {
			took = seconds(s.TookSeconds)
		}
		rows = append(rows, cells(fmt.Sprint(s.Number), stepName(s), s.State, took, stall, waiting, errs, s.Text))
	}
	page := p.page()
	if len(rows) > 0 {
		page.table([]string{"STEP", "DOES", "STATE", "TOOK", "STALL", "WAITING", "ERRORS", "TEXT"}, rows)
	}
	a := r.After
	if a == nil {
		return
	}
	var members []string
	for _, x := range a.Members {
		text := x.Name + " " + strings.TrimSpace(x.Role+" "+x.State)
		if x.LagBytes > 0 {
			text += ", " + bytesText(x.LagBytes) + " behind"
		}
		if x.Pending {
			text += ", restart pending"
		}
		members = append(members, text)
	}
	paused := 0
	for _, x := range a.Poolers {
		if x.Paused == "yes" {
			paused++
		}
	}
	page.line("", "Now: ", fmt.Sprintf("primary %s, timeline %d; %s; %s, %d paused; writable through the poolers: %s.",
		firstText(a.Primary, "none"), a.Timeline, strings.Join(members, "; "), count(len(a.Poolers), "pooler"), paused,
		firstText(a.Writable, "unknown")))
	for _, problem := range a.Problems {
		page.line("", "- ", problem)
	}
}

// untilSecondSignal is for what is better finished than left: the first SIGINT, SIGTERM or SIGHUP (the terminal is gone) closes stopped,
// the second ends the context, and for a third the default action is back.
func untilSecondSignal() (_ context.Context, stopped <-chan struct{}, stop context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	first := make(chan struct{})
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		defer signal.Stop(signals)
		for n := range 2 {
			select {
			case <-signals:
			case <-ctx.Done():
				return
			}
			if n == 0 {
				close(first)
			}
		}
		cancel()
	}()
	return ctx, first, cancel
}
