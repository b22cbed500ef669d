package httpapi

import (
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/configversion"
	"github.com/pgbaton/pgbaton/hooks"
	"github.com/pgbaton/pgbaton/operation"
)

// What stops a reload has its name from package hooks, and is a type of problem under the same name.
var reloadProblems = map[string]kind{
	hooks.ProblemVersionTimeout: {hooks.ProblemVersionTimeout, 504, api.Transient, "The configuration version did not arrive in time"},
	hooks.ProblemVersionInvalid: {hooks.ProblemVersionInvalid, 409, api.Validation, "What should be a configuration version is none"},
	hooks.ProblemHandover:       {hooks.ProblemHandover, 409, api.Transient, "A handover is under way"},
	hooks.ProblemNotApplied:     {hooks.ProblemNotApplied, 409, api.Validation, "Reloaded, and something was not applied"},
	hooks.ProblemNotVerified:    {hooks.ProblemNotVerified, 503, api.Transient, "Reloaded, and not verified"},
	hooks.ProblemUnreachable:    {hooks.ProblemUnreachable, 503, api.Transient, "Who should reload does not answer"},
	hooks.ProblemInvalidFile:    {hooks.ProblemInvalidFile, 409, api.Validation, "A configuration file has errors"},
}

// reloadFailed is for what hooks gives no name.
var reloadFailed = kind{operation.ReloadFailed, 503, api.Transient, "Not reloaded"}

func reloadKinds() []kind {
	return []kind{reloadProblems[hooks.ProblemVersionTimeout], reloadProblems[hooks.ProblemVersionInvalid], reloadProblems[hooks.ProblemHandover],
		reloadProblems[hooks.ProblemNotApplied], reloadProblems[hooks.ProblemNotVerified], reloadProblems[hooks.ProblemUnreachable],
		reloadProblems[hooks.ProblemInvalidFile], reloadFailed}
}

// reloadRequest checks what a body asks for.
func reloadRequest(target string, body api.ReloadBody) (hooks.ReloadOptions, api.OperationRequest, error) {
	o := hooks.ReloadOptions{Target: target}
	var errs []api.FieldError
	if body.ConfigVersion != "" {
		version, err := configversion.Parse(body.ConfigVersion)
		if err != nil {
			errs = append(errs, api.FieldError{Message: err.Error(), Location: "body.configVersion"})
		} else {
			o.Version = &version
		}
	}
	o.Timeout = duration(body.Timeout, "body.timeout", time.Hour, &errs)
	if len(errs) > 0 {
		p := invalidRequest.problem("validation failed")
		p.Errors = errs
		return o, api.OperationRequest{}, p
	}
	return o, api.OperationRequest{Timeout: body.Timeout, ConfigVersion: body.ConfigVersion}, nil
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
