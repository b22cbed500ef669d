package httpapi

import (
	"context"

	"github.com/pgbaton/pgbaton/api"
)

// routeInput is exported in its fields only for huma.
type routeInput struct {
	Address string `query:"address" maxLength:"300" doc:"One of the addresses; without, all"`
	Looks   int    `query:"looks" minimum:"0" maximum:"12" default:"3" doc:"Connections to each; with 0 the addresses are listed"`
}

type routeOutput struct {
	Body api.RouteReport
}

// routeTurns is how many may look at a time: each look is some log-ins, and the poolers' own clients use the same way.
const routeTurns = 4

// getRoute looks where the poolers beside us lead. Who asks names no address of his own choice: only what a pooler here has in its
// configuration is looked at.
func (s *Server) getRoute(_ context.Context, in *routeInput) (*routeOutput, error) {
	// Not until the client's end, as with the status: who has closed its half of the connection still wants the answer.
	ctx := s.background
	select {
	case s.routeTurns <- struct{}{}:
		defer func() { <-s.routeTurns }()
	case <-ctx.Done():
		return nil, noMore("looks")
	}
	report, err := s.lookAlong(ctx, in.Address, in.Looks)
	if err != nil {
		return nil, poolerFailed.problem(err.Error()).retryAfter(retryOverload)
	}
	return &routeOutput{Body: report}, nil
}
