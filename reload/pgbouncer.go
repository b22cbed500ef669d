package reload

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
	"github.com/pgbaton/pgbaton/state"
)

const (
	// effectTimeout is how long the effect of a reload may take to show: a signal is not answered.
	effectTimeout = 3 * time.Second
	// firstArrival and lastArrival are how long a pooler is left alone before it is reloaded again, its copy of the file being late.
	firstArrival = time.Second
	lastArrival  = 15 * time.Second
	// handoverPoll is how often a pooler that is held is looked at.
	handoverPoll = 200 * time.Millisecond
)

// named has the pooler's name in the error once.
func named(p *pgb.Pooler, err error) error {
	if strings.Contains(err.Error(), "pooler "+p.Name+":") {
		return err
	}
	return fmt.Errorf("pooler %s: %w", p.Name, err)
}

// pgbouncer reloads every pooler at the same time. The error is all of theirs.
func (r *reload) pgbouncer(ctx context.Context) ([]api.PoolerReload, error) {
	poolers, _, errs := r.m.Poolers(ctx, nil)
	defer member.CloseAll(poolers)
	var reports []api.PoolerReload
	for _, err := range errs { // names that cannot be resolved
		reports = append(reports, api.PoolerReload{Done: api.ReloadNot, Error: err.Error()})
		r.journal.Add(state.Entry{Event: state.EventNotReloaded, Target: api.TargetPgBouncer, Code: member.Failed, Text: err.Error()})
	}
	index := map[*pgb.Pooler]int{}
	for _, p := range poolers {
		index[p] = len(reports)
		reports = append(reports, api.PoolerReload{Pooler: p.Name, Done: api.ReloadNot})
	}
	for i, err := range errs {
		errs[i] = &fault{problem: api.ProblemUnreachable, err: err}
	}
	alone := countLocal(poolers) == 1
	errs = append(errs, pgb.Each(poolers, func(p *pgb.Pooler) error {
		return r.onePooler(ctx, p, alone, &reports[index[p]])
	})...)
	err := joined(errs)
	if err == nil {
		r.journal.Add(
			state.Entry{Event: state.EventAllReloaded, Target: api.TargetPgBouncer, Version: versionText(r.versions[api.TargetPgBouncer])},
		)
	}
	if version := r.versions[api.TargetPgBouncer]; version != nil {
		version.OnDisk = version.Seen
		if err == nil && !r.m.DryRun { // every pooler is verified
			version.Applied = version.Seen
		}
	}
	return reports, err
}

// joined keeps one line.
func joined(errs []error) error {
	var texts []string
	var firstFault *fault
	for _, err := range errs {
		if err == nil {
			continue
		}
		texts = append(texts, err.Error())
		var f *fault
		if errors.As(err, &f) && firstFault == nil {
			firstFault = f
		}
	}
	if len(texts) == 0 {
		return nil
	}
	out := &fault{err: errors.New(strings.Join(texts, "; "))}
	if firstFault != nil {
		out.problem, out.code = firstFault.problem, firstFault.code
	}
	return out
}

func countLocal(poolers []*pgb.Pooler) int {
	n := 0
	for _, p := range poolers {
		if p.Local() {
			n++
		}
	}
	return n
}

func (r *reload) onePooler(ctx context.Context, p *pgb.Pooler, alone bool, report *api.PoolerReload) error {
	start := time.Now()
	x := &poolerReload{reload: r, Pooler: p, alone: alone, report: report}
	defer x.close()
	err := x.run(ctx)
	entry := state.Entry{
		Event:   state.EventReloaded,
		Target:  api.TargetPgBouncer,
		Pooler:  p.Name,
		Took:    time.Since(start),
		Version: versionText(r.versions[api.TargetPgBouncer]),
	}
	if err != nil {
		report.Error = err.Error()
		entry.Event, entry.Code, entry.Text = state.EventNotReloaded, member.Failed, err.Error()
		var f *fault
		if errors.As(err, &f) {
			err = &fault{problem: f.problem, code: f.code, err: named(p, f.err)}
		}
	} else if !r.m.DryRun {
		entry.Text = report.Done + " by " + report.How + " and verified"
		r.say(api.TargetPgBouncer, p.Name, "%s", entry.Text)
	}
	r.journal.Add(entry)
	return err
}

// changes are the settings that differ; none when the ones before are not known.
func changes(before, after []pgbini.Setting) []api.SettingDifference {
	old := make(map[string]string, len(before))
	for _, s := range before {
		old[s.Key] = s.Value
	}
	var out []api.SettingDifference
	for _, s := range after {
		if was, ok := old[s.Key]; ok && was != s.Value {
			out = append(out, api.SettingDifference{Key: s.Key, Want: s.Value, Running: was})
		}
	}
	return out
}

// sorted tells what a reload changes from what needs a restart. What the restart would refuse is not left for then.
func sorted(differences []pgbini.Difference) (now, atRestart []api.SettingDifference) {
	for _, d := range differences {
		s := api.SettingDifference{File: d.File, Line: d.Line, Key: d.Key, Want: d.Want, Running: d.Running, Problem: d.Problem}
		if d.NeedsRestart && d.Problem == "" {
			atRestart = append(atRestart, s)
		} else {
			now = append(now, s)
		}
	}
	return now, atRestart
}
