package httpapi

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/maintenance"
)

type switchoverInput struct {
	PostInput
	Body *api.SwitchoverBody
}

type restartInput struct {
	PostInput
	Body *api.RestartBody
}

// registerCluster makes the routes of planned maintenance.
func (s *Server) registerCluster(routes huma.API, problem *huma.Schema, post, body []kind) {
	add(s, routes, problem, huma.Operation{OperationID: "checkCluster", Method: "POST", Path: "/v1/" + api.KindCheck, DefaultStatus: 202,
		Summary:     "Look for everything that would spoil a handover, on every member",
		Description: "Changes nothing. A body is not looked at."},
		toOperate, append([]kind{operationRunning}, post...), func(ctx context.Context, in *PostInput) (*operationOutput, error) {
			d := demand(ctx, in.IdempotencyKey, api.OperationRequest{})
			d.Body = nil // which is not looked at
			return s.accepted(s.operations.Check(d))
		})
	add(s, routes, problem, huma.Operation{OperationID: "switchOver", Method: "POST", Path: "/v1/" + api.KindSwitchover, DefaultStatus: 202,
		Summary: "Hand the primary over to another member, and look whether that is so", Description: oneRun}, toOperate, body,
		func(ctx context.Context, in *switchoverInput) (*operationOutput, error) {
			if in.Body == nil {
				in.Body = &api.SwitchoverBody{}
			}
			asked, wrong := maintenance.AskSwitchover(*in.Body)
			if len(wrong) > 0 {
				return nil, wrongBody(wrong)
			}
			d := demand(ctx, in.IdempotencyKey, api.OperationRequest{Switchover: in.Body})
			return s.accepted(s.operations.Maintain(d, asked, in.Body.SkipChecks, in.Body.Resume))
		})
	add(
		s,
		routes,
		problem,
		huma.Operation{OperationID: "restartMembers", Method: "POST", Path: "/v1/" + api.KindRestart, DefaultStatus: 202,
			Summary: "Restart members one after the other", Description: oneRun},
		toOperate,
		body,
		func(ctx context.Context, in *restartInput) (*operationOutput, error) {
			if in.Body == nil {
				in.Body = &api.RestartBody{}
			}
			asked, wrong := maintenance.AskRestart(*in.Body)
			if len(wrong) > 0 {
				return nil, wrongBody(wrong)
			}
			d := demand(ctx, in.IdempotencyKey, api.OperationRequest{Restart: in.Body})
			return s.accepted(s.operations.Maintain(d, asked, in.Body.SkipChecks, in.Body.Resume))
		},
	)
}

const oneRun = "One run of planned maintenance works on a cluster at a time: a second one fails as refused, on whichever member it was " +
	"asked for. When the server ends, the run ends after the step that is under way."

// wrongBody is the problem of a body, whose fields are named.
func wrongBody(wrong []api.FieldError) error {
	p := invalidRequest.problem("validation failed")
	for _, w := range wrong {
		p.Errors = append(p.Errors, api.FieldError{Message: w.Message, Location: "body." + w.Location})
	}
	return p
}
