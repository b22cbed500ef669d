package follow

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
)

// hurryFor is how long a pooler that was not paused connects again at once where it failed before (server_login_retry).
const hurryFor = 2 * time.Second

// Hurry has a pooler that was moved connect to its new server at once: without a pause clients have met the old one, and a pool that could
// not connect waits for server_login_retry before it tries again, also elsewhere (1.18 to 1.26). It is for whoever has moved the pooler:
// who comes second finds nothing to move. It blocks for two seconds, then the setting is put back, also where the context has ended. The
// mark is a guard's, so that it is put back whatever becomes of us.
func (v *Mover) Hurry(ctx context.Context) error {
	ours := rand.IntN(10)
	if _, _, err := v.Mark(ctx, pgb.Guard, ours); err != nil {
		return err
	}
	err := v.Reconnect(ctx)
	member.Sleep(ctx, hurryFor)
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), member.ConsoleTimeout)
	defer cancel()
	mark, looked := v.Holder(short)
	if mark == nil || mark.Owner != pgb.Guard || mark.Nonce != ours { // a handover that has begun meanwhile has put on its own
		return errors.Join(err, looked)
	}
	return errors.Join(err, v.Unmark(short))
}
