package operation

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/health"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/reload"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/configversion"
)

// What a reload of PostgreSQL may take beyond its own time-out: Patroni does it within loop_wait, and the postmaster reads files.
const (
	reloadGrace = 5 * time.Second
)

// Reload reloads o.Target, which is api.TargetPostgres or api.TargetPgBouncer. It blocks until that is written down, not until it is done.
// The errors are those of [Runner.Pause].
func (r *Runner) Reload(d Demand, o reload.Options) (Operation, error) {
	kind := api.KindReloadPgBouncer
	if o.Target == api.TargetPostgres {
		kind = api.KindReloadPostgres
	}
	return r.launch(kind, false, d, func(ctx context.Context, k *kept) ending { return r.reload(ctx, k, o) })
}

// reload runs one.
func (r *Runner) reload(ctx context.Context, k *kept, o reload.Options) ending {
	o.Progress = func(step reload.Progress) {
		r.store.progress(k, api.Step{Time: step.Time, Target: step.Target, Pooler: step.Pooler, Text: step.Text})
	}
	report := r.calls.Reload(ctx, r.member, o)
	r.changed()
	outcome := &api.Outcome{Code: report.Code, Decision: report.Decision, Reload: &report.ReloadReport}
	if report.Code == member.Done {
		return ending{state: api.Succeeded, final: true, outcome: outcome, text: report.Decision}
	}
	f := &Failure{Class: report.ErrorClass(), Detail: report.Decision, ObservedVersion: observedVersion(report.ReloadReport)}
	if cause := context.Cause(ctx); cause != nil {
		// What was asked for by then may still be done, so this is not known to have failed.
		f.Name, f.Class, f.Detail = UnknownOutcome, api.Transient, cause.Error()+"; "+report.Decision
		return ending{state: api.Unknown, outcome: outcome, failure: f, text: "interrupted: " + cause.Error()}
	}
	switch {
	case isReloadProblem(report.Problem):
		f.Name = report.Problem
	case report.Code == member.Invalid:
		f.Name = InvalidConfiguration
	case report.Code == member.Refused:
		f.Name = Refused
	default:
		f.Name = ReloadFailed
	}
	var failed []string
	for _, x := range report.Poolers {
		if x.Error != "" {
			failed = append(failed, x.Pooler)
		}
	}
	if len(failed) == 1 {
		f.Pooler = failed[0]
	}
	return ending{state: api.Failed, final: true, outcome: outcome, failure: f, text: report.Decision}
}

// isReloadProblem reports whether package reload gives this name to what stops a reload.
func isReloadProblem(problem string) bool {
	switch problem {
	case api.ProblemVersionTimeout, api.ProblemVersionInvalid, api.ProblemHandover, api.ProblemNotApplied, api.ProblemNotVerified,
		api.ProblemUnreachable, api.ProblemInvalidFile:
		return true
	}
	return false
}

// observedVersion is the version that was seen last.
func observedVersion(report api.ReloadReport) string {
	for _, v := range report.Versions {
		if v.Seen != nil {
			return versionText(v.Seen)
		}
	}
	return ""
}

func versionText(v *configversion.Version) string {
	if v == nil {
		return ""
	}
	return strconv.FormatUint(uint64(*v), 10)
}

// judgeReload: a reload with a version has succeeded when this version is applied. With PostgreSQL that may be after the restart of this
// server: Patroni goes on with what it was told, and applies its dynamic configuration by itself. A pooler that was not reloaded by then is
// not. Without a version nothing tells a reload of before from one of after; to reload again does no harm.
func judgeReload(o Operation, v view) ending {
	s := v.status
	target := strings.TrimSuffix(o.Kind, "/reload")
	for _, x := range s.Versions {
		if x.Target != target {
			continue
		}
		if asked, err := configversion.Parse(o.Request.ConfigVersion); err == nil && x.Applied != nil && *x.Applied >= asked {
			return ending{
				state:   api.Succeeded,
				final:   true,
				outcome: &api.Outcome{Decision: "version " + versionText(x.Applied) + " is applied"},
				text:    fmt.Sprintf("version %s is applied", versionText(x.Applied)),
			}
		}
	}
	if o.Request.ConfigVersion == "" {
		return ending{
			state: api.Unknown,
			final: true,
			text:  "whether it was reloaded cannot be seen: ask for the reload again, it does no harm",
		}
	}
	if until := appliedUntil(o, s); target == api.TargetPostgres && v.now.Before(until) {
		return ending{state: api.Unknown, text: fmt.Sprintf("version %s is not applied; looking until %s", o.Request.ConfigVersion,
			until.UTC().Format(time.RFC3339))}
	}
	return ending{state: api.Unknown, final: true, text: "version " + o.Request.ConfigVersion +
		" cannot be seen applied: look at versions in /v1/status, and ask for the reload again, it does no harm"}
}

// appliedUntil is when a version that is not applied will not be any more by what the operation has done.
func appliedUntil(o Operation, s health.Status) time.Time {
	timeout, loopWait := reload.DefaultTimeout, patroni.DefaultLoopWait
	if d, err := config.ParseDuration("timeout", o.Request.Timeout); err == nil {
		timeout = d
	}
	if s.Patroni.LoopWaitSeconds > 0 {
		loopWait = time.Duration(s.Patroni.LoopWaitSeconds * float64(time.Second))
	}
	return o.Started.Add(timeout + loopWait + reloadGrace)
}
