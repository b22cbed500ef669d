package httpapi

import (
	"context"
	"time"

	"github.com/pgbaton/pgbaton/api"
)

// checkAge is how old an answer of GET /v1/check may be: a check takes a dozen connections to each pooler and a process, and its answer
// does not depend on who asks.
const checkAge = 3 * time.Second

type checkOutput struct {
	Body api.CheckReport
}

// checkCache makes one check at a time, and has those who wait for it share what it has found.
type checkCache struct {
	make func(context.Context) api.CheckReport
	turn chan struct{} // holds one: who may look at the rest

	report api.CheckReport
	at     time.Time // it was begun then
}

// get blocks until there is a report, which takes the time of two checks at most, or the context ends.
func (c *checkCache) get(ctx context.Context) (api.CheckReport, error) {
	asked := time.Now()
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return api.CheckReport{}, ctx.Err()
	}
	if c.at.IsZero() || asked.Sub(c.at) > checkAge {
		at := time.Now()
		report := c.make(ctx)
		if ctx.Err() != nil { // cut short: who did not answer in time may have been about to
			return api.CheckReport{}, ctx.Err()
		}
		c.report, c.at = report, at
	}
	return c.report, nil
}

func (s *Server) getCheck(context.Context, *struct{}) (*checkOutput, error) {
	// Not until the client's end, as with the status: the next one waits for this check anyway.
	report, err := s.check.get(s.background)
	if err != nil {
		return nil, noMore("check")
	}
	return &checkOutput{Body: report}, nil
}
