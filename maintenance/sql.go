package maintenance

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/plan"
	"github.com/pgbaton/pgbaton/postgres"
)

// server is a member's server, with our own server's user. That of the member that we are on is asked as pgbaton.yaml says: by its socket,
// often, where no password is needed.
func (s *scene) server(m *member.Member, name string) (*postgres.Server, error) {
	target, ok := s.members[name]
	if !ok {
		return nil, errors.New(name + " is no member now")
	}
	local, err := m.Server()
	if err != nil || name == s.self {
		return local, err
	}
	return member.ServerOf(local, target.Member)
}

// query calls do with a connection to a member's server. It blocks for [member.StatusTimeout] at most.
func (s *scene) query(ctx context.Context, m *member.Member, name string, do func(context.Context, *postgres.Conn) error) error {
	server, err := s.server(m, name)
	if err != nil {
		return err
	}
	return member.With(ctx, server, do)
}

// lookAtSlots finds the logical slots that a standby should have and that are not ready on it, which GET /leader does not tell. Where the
// primary has none of them the standbys are not asked. It blocks for two times [member.StatusTimeout] at most. Of a server that does not
// answer nothing is known: pgbaton check says so.
func (s *scene) lookAtSlots(ctx context.Context, m *member.Member) {
	leader, ok := s.Leader()
	if !ok || !leader.Reachable {
		return
	}
	slots := func(name string) (found postgres.Slots, err error) {
		err = s.query(ctx, m, name, func(ctx context.Context, conn *postgres.Conn) (err error) {
			found, err = conn.Slots(ctx)
			return err
		})
		if err != nil {
			m.Log.Debug("replication slots cannot be seen", "of", name, "error", err)
		}
		return found, err
	}
	kept := func(slot postgres.LogicalSlot) bool { return slot.Failover || s.dynamic.PermanentLogical(slot.Name) }
	primary, err := slots(leader.Name)
	if err != nil || len(postgres.NotReady(primary, postgres.Slots{}, kept)) == 0 {
		return
	}
	var all sync.WaitGroup
	for i := range s.Members {
		p := &s.Members[i]
		if p.Leader() || !p.Reachable || p.NoFailover() {
			continue
		}
		all.Go(func() {
			if standby, err := slots(p.Name); err == nil {
				p.CatchUp = postgres.NotReady(primary, standby, kept)
			}
		})
	}
	all.Wait()
}

// delayed reports whether a standby that streams replays later on purpose, which GET /leader does not tell, and notes it in the view. It
// blocks for [member.StatusTimeout] at most.
func (s *scene) delayed(ctx context.Context, m *member.Member, name string) bool {
	i := slices.IndexFunc(s.Members, func(p plan.Member) bool { return p.Name == name })
	if i < 0 || s.Members[i].Leader() || !s.Members[i].Streaming() {
		return false
	}
	err := s.query(ctx, m, name, func(ctx context.Context, conn *postgres.Conn) (err error) {
		s.Members[i].ApplyDelay, err = conn.ApplyDelay(ctx)
		return err
	})
	if err != nil {
		m.Log.Debug("recovery_min_apply_delay cannot be seen", "of", name, "error", err)
	}
	return s.Members[i].ApplyDelay > 0
}
