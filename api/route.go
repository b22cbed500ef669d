package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// RoutePath is where serve tells how the route looks from where it stands.
const RoutePath = "/v1/route"

// Bounds of a [RouteReport]. What a server answers beyond them is no report.
const (
	MaxRouteLooks     = 12 // at one address
	MaxRouteAddresses = 50
)

// RouteReport is where the addresses lead that the poolers beside a serve connect to, seen from that machine.
type RouteReport struct {
	Addresses []RouteAddress `json:"addresses"`
}

// RouteAddress is one of them.
type RouteAddress struct {
	Address string      `json:"address" doc:"As the pooler has it: HOST:PORT, or a socket's directory and port" example:"127.0.0.1:5432"`
	Looks   []RouteLook `json:"looks" doc:"Connections that were open at the same time"`
}

// RouteLook is one connection: which server was at its other end, or why none was.
type RouteLook struct {
	SystemID        string    `json:"systemId,omitempty" doc:"Of the database cluster"`
	PostmasterStart time.Time `json:"postmasterStart,omitzero" doc:"Of the server"`
	InRecovery      bool      `json:"inRecovery" doc:"It takes no writes"`
	UpMicroseconds  int64     `json:"upMicroseconds,omitempty" doc:"Since the server was started, by its own clock; where it is in recovery"`
	LastXact        time.Time `json:"lastXact,omitzero" doc:"Commit time of the last transaction that it has replayed since then"`
	Failed          string    `json:"failed,omitempty" enum:"refused,silent,login" doc:"Nobody listens or it is not ready; nobody answers; it lets us in with no database"`
	Error           string    `json:"error,omitempty"`
}

// How a look can fail.
const (
	RouteRefused = "refused"
	RouteSilent  = "silent"
	RouteLogin   = "login"
)

var errNoRoute = errors.New("the answer of the agent is longer than a report may be")

// Route is where the poolers beside a serve lead, seen from there; address is one that an earlier report has named, "" is all. It has so
// many looks at each, [MaxRouteLooks] at most; with none the addresses are listed.
func (c *Client) Route(ctx context.Context, address string, looks int) (RouteReport, error) {
	query := url.Values{"looks": {strconv.Itoa(looks)}}
	if address != "" {
		query.Set("address", address)
	}
	var r RouteReport
	err := c.call(ctx, http.MethodGet, RoutePath+"?"+query.Encode(), "", nil, &r)
	if err == nil && len(r.Addresses) > MaxRouteAddresses {
		return RouteReport{}, errNoRoute
	}
	for _, a := range r.Addresses {
		if len(a.Looks) > MaxRouteLooks {
			return RouteReport{}, errNoRoute
		}
	}
	return r, err
}
