package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
	"github.com/pgbaton/pgbaton/e2e/seen"
)

// kubeReport makes the report of what was seen on Kubernetes, as the test there has written it down, and says where it is.
func kubeReport(file, dir string, out io.Writer) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var d seen.Demo
	if err := json.Unmarshal(data, &d); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if len(d.Events) == 0 {
		return &problem{file + " has nothing that was done", "make it with make demo-kube"}
	}
	if dir == "" {
		repository, err := repositoryRoot()
		if err != nil {
			return err
		}
		dir = filepath.Join(repository, reportDir)
	}
	r := onKubernetes(d)
	if err := r.write(dir); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s\nReport and plot: %s, .png; report.txt, report.json, timeline-*.log\n\n", r.text(),
		filepath.Join(dir, "throughput.svg"))
	if failure := r.failure(); failure != "" {
		return &problem{failure, "the time lines in " + dir + " show when; a machine that is very busy may be the reason"}
	}
	return nil
}

// onKubernetes is the report of one way. What the lab's journals and routes would tell nobody has there: the servers' logs do.
func onKubernetes(d seen.Demo) report {
	w := way{Name: pgbatonHooks.name, Writes: d.Clients.Acknowledged, ErrorTexts: map[string]int{}}
	for _, c := range d.Clients.Clients {
		for _, e := range c.Errors {
			w.ErrorTexts[e.Text]++
			w.Errors++
		}
	}
	if d.Clients.Lost > 0 {
		w.LostWrites = fmt.Sprintf("%d of %d acknowledged writes are lost", d.Clients.Lost, d.Clients.Acknowledged)
	}
	// The probe has counted in pieces of time of its own: each commit is taken for the middle of its piece.
	var commits []time.Time
	for i, n := range d.Clients.Commits {
		middle := d.Clients.Began.Add(time.Duration(i)*seen.Width + seen.Width/2)
		commits = append(commits, slices.Repeat([]time.Time{middle}, n)...)
	}
	for _, e := range d.Events {
		var events []lab.Event
		for _, l := range e.Lines {
			if !l.At.Before(e.Asked) {
				events = append(events, lab.Event(l))
			}
		}
		slices.SortStableFunc(events, func(a, b lab.Event) int { return a.At.Compare(b.At) })
		gap := d.Clients.Longest(e.Asked, e.Ended)
		o := operation{Name: e.Name, From: e.From, To: e.To, Asked: e.Asked, Zero: e.Asked, StallMS: gap.Length().Milliseconds()}
		o.Steps = handoverSteps(e.Asked, e.From, e.To, nil, events, nil, lab.Stall{From: gap.From, To: gap.To})
		if pause, have := o.step(stepPause); have {
			o.Zero = pause.At
		}
		if f, err := lab.SwitchoverFloor(events, e.From, e.To); err == nil {
			o.Floor = &floor{ShutdownMS: f.Shutdown.Milliseconds(), LockMS: f.Lock.Milliseconds(), PromotionMS: f.Promotion.Milliseconds()}
		}
		until := shownUntil(o)
		if until.After(e.Ended) {
			until = e.Ended
		}
		o.Throughput = throughput([][]time.Time{commits}, o.Zero, until)
		o.log = merged(o.Zero, nil, events)
		w.Operations = append(w.Operations, o)
	}
	return report{Made: d.Events[0].Asked, Versions: d.Versions, Load: d.Load, Ways: []way{w}}
}
