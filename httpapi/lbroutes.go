package httpapi

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/follow"
	"github.com/pgbaton/pgbaton/member"
)

// routePrefix is what load balancers ask below.
const routePrefix = "/route/"

var (
	routeForwards = kind{"pooler-forwards", 404, api.NotFound, "The pooler forwards: those that are here stay, and no new ones come"}
	routeDown     = kind{"not-the-leader", 503, api.Transient, "The leader's clients do not belong here"}
	notAReplica   = kind{"not-a-replica", 503, api.Transient, "Readers do not belong here"}
)

// lbKinds are the answers to load balancers that are no 200.
func lbKinds() []kind { return []kind{routeForwards, routeDown, notAReplica} }

// lbRoutes are what a load balancer asks. Only the status counts; HAProxy takes 404 for "no new sessions" (http-check disable-on-404).
func (s *Server) lbRoutes(routes huma.API, problem *huma.Schema, get []kind) {
	if s.primaryRoute == nil {
		s.primaryRoute = func() follow.Route {
			if s.follow == nil {
				return follow.RouteDown
			}
			return s.follow.Route()
		}
	}
	if s.replicaRoute == nil {
		s.replicaRoute = func(ctx context.Context) bool { return reads(ctx, s.member) }
	}
	add(s, routes, problem, huma.Operation{OperationID: "getPrimaryRoute", Method: "GET", Path: routePrefix + "primary",
		Summary: "The leader's clients belong to this member's pooler"},
		openToAll, append([]kind{routeForwards, routeDown}, get...), func(context.Context, *struct{}) (*healthOutput, error) {
			switch route := s.primaryRoute(); route {
			case follow.RouteOpen:
				return healthy(), nil
			case follow.RouteForwarded:
				return nil, routeForwards.problem(route.String())
			default:
				return nil, routeDown.problem(route.String()).retryAfter(time.Second)
			}
		})
	add(s, routes, problem, huma.Operation{OperationID: "getReplicaRoute", Method: "GET", Path: routePrefix + "replica",
		Summary: "Readers belong to this member's pooler"},
		openToAll, append([]kind{notAReplica}, get...), func(context.Context, *struct{}) (*healthOutput, error) {
			if s.replicaRoute(s.background) { // not until the client's end, as with the status
				return healthy(), nil
			}
			return nil, notAReplica.problem("not a replica, or it does not answer").retryAfter(time.Second)
		})
}

func healthy() *healthOutput {
	out := &healthOutput{}
	out.Body.Status = "ok"
	return out
}

// reads reports whether the local server is a replica that answers.
func reads(ctx context.Context, m *member.Member) bool {
	local, err := m.Server()
	if err != nil {
		return false
	}
	identity, err := member.Identify(ctx, local)
	return err == nil && identity.InRecovery
}
