package hooks

import (
	"context"
	"errors"

	"github.com/pgbaton/pgbaton/postgres"
)

var errNoLocal = errors.New("the local server does not answer")

// withLocal lends the connection to the local server, to one at a time and for localTimeout at most. The end of ctx does not break it: it
// is needed for the stop, and the policy looks at what is open when the time is up.
func (g *guard) withLocal(ctx context.Context, do func(context.Context) error) error {
	g.localMu.Lock()
	defer g.localMu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), localTimeout)
	defer cancel()
	return do(ctx)
}

// askServer is withLocal for questions. A connection that broke is not tried again: the server is about to stop. do says in g.blind whether
// it has.
func (g *guard) askServer(ctx context.Context, do func(context.Context) error) error {
	return g.withLocal(ctx, func(ctx context.Context) error {
		if g.local == nil || g.blind {
			return errNoLocal
		}
		return do(ctx)
	})
}

// identity asks the local server who it is, and since when it runs.
func (g *guard) identity(ctx context.Context) (here postgres.Identity, err error) {
	err = g.withLocal(ctx, func(ctx context.Context) error {
		here, err = g.local.Identity(ctx)
		return err
	})
	return here, err
}
