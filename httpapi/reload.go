package httpapi

import (
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/configversion"
	"github.com/pgbaton/pgbaton/health"
	"github.com/pgbaton/pgbaton/operation"
	"github.com/pgbaton/pgbaton/reload"
)

// What stops a reload has its name from package api, and is a type of problem under the same name.
var reloadProblems = map[string]kind{
	api.ProblemVersionTimeout: {api.ProblemVersionTimeout, 504, api.Transient, "The configuration version did not arrive in time"},
	api.ProblemVersionInvalid: {api.ProblemVersionInvalid, 409, api.Validation, "The configuration version is not valid"},
	api.ProblemHandover:       {api.ProblemHandover, 409, api.Transient, "A handover is under way"},
	api.ProblemNotApplied:     {api.ProblemNotApplied, 409, api.Validation, "Reloaded, and something was not applied"},
	api.ProblemNotVerified:    {api.ProblemNotVerified, 503, api.Transient, "Reloaded, and not verified"},
	api.ProblemUnreachable:    {api.ProblemUnreachable, 503, api.Transient, "Who should reload does not answer"},
	api.ProblemInvalidFile:    {api.ProblemInvalidFile, 409, api.Validation, "A configuration file has errors"},
}

// reloadFailed is for what has no name there.
var reloadFailed = kind{operation.ReloadFailed, 503, api.Transient, "Not reloaded"}

func reloadKinds() []kind {
	return []kind{reloadProblems[api.ProblemVersionTimeout], reloadProblems[api.ProblemVersionInvalid], reloadProblems[api.ProblemHandover],
		reloadProblems[api.ProblemNotApplied], reloadProblems[api.ProblemNotVerified], reloadProblems[api.ProblemUnreachable],
		reloadProblems[api.ProblemInvalidFile], reloadFailed}
}

// reloadRequest checks what a body asks for.
func reloadRequest(target string, body api.ReloadBody) (reload.Options, api.OperationRequest, error) {
	o := reload.Options{Target: target}
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

// versionGauges are the versions of a status, for the metrics.
func versionGauges(s health.Status, set func(target, stage string, version float64)) {
	for _, v := range s.Versions {
		for stage, at := range map[string]*configversion.Version{"wanted": v.Seen, "disk": v.OnDisk, "applied": v.Applied} {
			if at != nil {
				set(v.Target, stage, float64(*at))
			}
		}
	}
}
