package health

import (
	"context"
	"slices"
	"sync"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
)

// Check looks for everything that would spoil a handover, as far as it can be seen from this member, and changes nothing. It asks everybody
// at once and blocks until all have answered, 4 s at most.
func Check(ctx context.Context, m *member.Member) api.CheckReport {
	report, _ := check(ctx, m)
	return report
}

// check is Check, and what it was judged by.
func check(ctx context.Context, m *member.Member) (api.CheckReport, view) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	var all sync.WaitGroup
	var v view
	var more *further
	all.Go(func() { v = look(ctx, m) })
	all.Go(func() { more = lookFurther(ctx, m) })
	all.Wait()
	v.further = more
	if more.init.postmasterErr == nil { // else Patroni is in another container, and its programs are, too
		more.hooks.programs = programs(effectiveHooks(more.hooks.local, dynamicHooks(v.dynamic)))
	}
	for i := range v.poolers {
		if p, ok := more.poolers[v.poolers[i].status.Pooler]; ok {
			v.poolers[i].ours = p.ours
		}
	}
	report := api.CheckReport{Member: member.Name(), Scope: v.health.Scope, OK: true, Findings: judge(v)}
	if name := v.name(); name != "" {
		report.Member = name
	}
	finish(&report)
	return report, v
}

// finish puts the errors first.
func finish(report *api.CheckReport) {
	slices.SortStableFunc(report.Findings, func(a, b api.Finding) int { return severity(b) - severity(a) })
	for _, f := range report.Findings {
		report.OK = report.OK && f.Severity != api.SeverityError
	}
	if report.Findings == nil {
		report.Findings = []api.Finding{}
	}
}

func severity(f api.Finding) int {
	if f.Severity == api.SeverityError {
		return 1
	}
	return 0
}
