package httpapi

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/configversion"
	"github.com/pgbaton/pgbaton/hooks"
)

// What stops a reload has its name from package hooks, and is a type of problem under the same name.
var reloadProblems = map[string]kind{
	hooks.ProblemVersionTimeout: {hooks.ProblemVersionTimeout, 504, classTransient, "The configuration version did not arrive in time"},
	hooks.ProblemVersionInvalid: {hooks.ProblemVersionInvalid, 409, classValidation, "What should be a configuration version is none"},
	hooks.ProblemHandover:       {hooks.ProblemHandover, 409, classTransient, "A handover is under way"},
	hooks.ProblemNotApplied:     {hooks.ProblemNotApplied, 409, classValidation, "Reloaded, and something was not applied"},
	hooks.ProblemNotVerified:    {hooks.ProblemNotVerified, 503, classTransient, "Reloaded, and not verified"},
	hooks.ProblemUnreachable:    {hooks.ProblemUnreachable, 503, classTransient, "Who should reload does not answer"},
	hooks.ProblemInvalidFile:    {hooks.ProblemInvalidFile, 409, classValidation, "A configuration file has errors"},
}

// reloadFailed is for what hooks gives no name.
var reloadFailed = kind{"reload-failed", 503, classTransient, "Not reloaded"}

func reloadKinds() []kind {
	return []kind{reloadProblems[hooks.ProblemVersionTimeout], reloadProblems[hooks.ProblemVersionInvalid], reloadProblems[hooks.ProblemHandover],
		reloadProblems[hooks.ProblemNotApplied], reloadProblems[hooks.ProblemNotVerified], reloadProblems[hooks.ProblemUnreachable],
		reloadProblems[hooks.ProblemInvalidFile], reloadFailed}
}

// reload runs one.
func (s *Server) reload(ctx context.Context, k *kept, o hooks.ReloadOptions) {
	o.Progress = func(step hooks.Step) {
		s.store.progress(k, Step{Time: step.Time, Target: step.Target, Pooler: step.Pooler, Text: step.Text})
	}
	report := s.calls.Reload(ctx, s.rt, o)
	s.status.spoil()
	outcome := &Outcome{Code: report.Code, Decision: report.Decision, Reload: &report}
	if report.Code == hooks.Done {
		s.store.settle(k, stateSucceeded, outcome, nil, report.Decision, true)
		return
	}
	if cause := context.Cause(ctx); cause != nil {
		// What was asked for by then may still be done, so this is not known to have failed.
		p := unknownOutcome.problem(cause.Error() + "; " + report.Decision)
		p.ObservedVersion = observedVersion(report)
		s.store.settle(k, stateUnknown, outcome, p, "interrupted: "+cause.Error(), false)
		return
	}
	what, known := reloadProblems[report.Problem]
	switch {
	case known:
	case report.Code == hooks.Invalid:
		what = invalidConfiguration
	case report.Code == hooks.Refused:
		what = refused
	default:
		what = reloadFailed
	}
	p := what.problem(report.Decision)
	p.ObservedVersion = observedVersion(report)
	var failed []string
	for _, x := range report.Poolers {
		if x.Error != "" {
			failed = append(failed, x.Pooler)
		}
	}
	if len(failed) == 1 {
		p.Pooler = failed[0]
	}
	s.store.settle(k, stateFailed, outcome, p, report.Decision, true)
}

// observedVersion is the version that was seen last.
func observedVersion(report hooks.ReloadReport) string {
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

// reloadRequest checks what a body asks for.
func reloadRequest(target string, body reloadBody) (hooks.ReloadOptions, OperationRequest, error) {
	o := hooks.ReloadOptions{Target: target}
	var errs []FieldError
	if body.ConfigVersion != "" {
		version, err := configversion.Parse(body.ConfigVersion)
		if err != nil {
			errs = append(errs, FieldError{Message: err.Error(), Location: "body.configVersion"})
		} else {
			o.Version = &version
		}
	}
	o.Timeout = duration(body.Timeout, "body.timeout", time.Hour, &errs)
	if len(errs) > 0 {
		p := invalidRequest.problem("validation failed")
		p.Errors = errs
		return o, OperationRequest{}, p
	}
	return o, OperationRequest{Timeout: body.Timeout, ConfigVersion: body.ConfigVersion}, nil
}

// What a reload of PostgreSQL may take beyond its own time-out: Patroni does it within loop_wait, and the postmaster reads files.
const (
	defaultLoopWait = 10 * time.Second
	reloadGrace     = 5 * time.Second
)

// judgeReload: a reload with a version has succeeded when this version is applied. With PostgreSQL that may be after the restart of this server:
// Patroni goes on with what it was told, and applies its dynamic configuration by itself. A pooler that was not reloaded by then is not. Without a
// version nothing tells a reload of before from one of after; to reload again does no harm.
func judgeReload(o Operation, s hooks.Status, now time.Time) finding {
	target := strings.TrimSuffix(o.Kind, "/reload")
	for _, v := range s.Versions {
		if v.Target != target {
			continue
		}
		if asked, err := configversion.Parse(o.Request.ConfigVersion); err == nil && v.Applied != nil && *v.Applied >= asked {
			return finding{state: stateSucceeded, final: true, outcome: &Outcome{Decision: "version " + versionText(v.Applied) + " is applied"},
				text: fmt.Sprintf("version %s is applied", versionText(v.Applied))}
		}
	}
	if o.Request.ConfigVersion == "" {
		return finding{state: stateUnknown, final: true, text: "whether it was reloaded cannot be seen: ask for the reload again, it does no harm"}
	}
	if until := appliedUntil(o, s); target == hooks.ReloadPostgres && now.Before(until) {
		return finding{state: stateUnknown, text: fmt.Sprintf("version %s is not applied; looking until %s", o.Request.ConfigVersion, until.UTC().Format(time.RFC3339))}
	}
	return finding{state: stateUnknown, final: true, text: "version " + o.Request.ConfigVersion +
		" cannot be seen applied: look at versions in /v1/status, and ask for the reload again, it does no harm"}
}

// appliedUntil is when a version that is not applied will not be any more by what the operation has done.
func appliedUntil(o Operation, s hooks.Status) time.Time {
	timeout, loopWait := hooks.DefaultReloadTimeout, defaultLoopWait
	if d, err := config.ParseDuration("timeout", o.Request.Timeout); err == nil {
		timeout = d
	}
	if s.Patroni.LoopWaitSeconds > 0 {
		loopWait = time.Duration(s.Patroni.LoopWaitSeconds * float64(time.Second))
	}
	return o.Started.Add(timeout + loopWait + reloadGrace)
}

// gauges are the versions of a status, for the metrics.
func versionGauges(s hooks.Status, set func(target, stage string, version float64)) {
	for _, v := range s.Versions {
		for stage, at := range map[string]*configversion.Version{"wanted": v.Seen, "disk": v.OnDisk, "applied": v.Applied} {
			if at != nil {
				set(v.Target, stage, float64(*at))
			}
		}
	}
}
