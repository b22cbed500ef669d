package httpapi

import (
	"time"

	"github.com/pgbaton/pgbaton/pause"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
)

// duration reads one of a body, with the rules and words of the configuration.
func duration(text, location string, longest time.Duration, errs *[]api.FieldError) time.Duration {
	if text == "" {
		return 0
	}
	d, err := config.ParseDuration(location, text)
	switch {
	case err != nil:
		*errs = append(*errs, api.FieldError{Message: "is not a duration with a unit, longer than nothing: write 500ms, 15s or 1m30s",
			Location: location})
	case d > longest:
		*errs = append(*errs, api.FieldError{Message: "is longer than " + longest.String(), Location: location})
	}
	return d
}

func (s *Server) pauseRequest(body *api.PauseBody) (pause.Options, api.OperationRequest, error) {
	if body == nil {
		body = &api.PauseBody{}
	}
	var errs []api.FieldError
	o := pause.Options{Lease: duration(body.Lease, "body.lease", maxLease, &errs), Timeout: duration(body.Timeout, "body.timeout",
		maxPauseFor, &errs)}
	if len(errs) > 0 {
		p := invalidRequest.problem("validation failed")
		p.Errors = errs
		return o, api.OperationRequest{}, p
	}
	c := s.member.Config.Pause
	if o.Lease == 0 {
		o.Lease = c.Lease
	}
	if o.Timeout == 0 {
		o.Timeout = c.Budget
	}
	return o, api.OperationRequest{Lease: o.Lease.String(), Timeout: o.Timeout.String()}, nil
}
