package follow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
	"github.com/pgbaton/pgbaton/postgres"
)

// NewReaders is [New] for the entries for reading.
func NewReaders(m *member.Member, p *pgb.Pooler) *Mover {
	v := New(m, p)
	readers := *v.config
	readers.Databases = readers.Readers
	v.config = &readers
	return v
}

// Moves reports whether there are entries that it moves.
func (v *Mover) Moves() bool { return len(v.config.Databases) > 0 }

// Unmovable is what is in the way of moving a pooler that [member.Member.Moves], its entries for reading too; nil: nothing is. It touches
// nothing.
func Unmovable(ctx context.Context, m *member.Member, p *pgb.Pooler) error {
	mover, readers := New(m, p), NewReaders(m, p)
	defer mover.Close()
	defer readers.Close()
	if _, _, err := mover.Entries(ctx); err != nil || !readers.Moves() {
		return err
	}
	_, _, err := readers.Entries(ctx)
	return err
}

// ErrNoReplica says that no other member was seen to be a replica that may be read from.
var ErrNoReplica = errors.New("no other replica takes questions")

// Replica finds a replica that others read from, in place of this member's: of that database cluster, in recovery, not the server that was
// started then, and of those the one that lags least. It blocks for some seconds at most where members do not answer.
func (f *Finder) Replica(ctx context.Context, systemID string, not time.Time) (Leader, error) {
	cluster, err := f.cluster(ctx)
	if err != nil {
		return Leader{}, err
	}
	local, err := f.m.Server()
	if err != nil {
		return Leader{}, err
	}
	var errs []error
	for _, m := range readable(cluster) {
		its, err := member.ServerOf(local, m)
		var there postgres.Identity
		if err == nil {
			there, err = member.Identify(ctx, its)
		}
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", m.Name, err))
		case !there.InRecovery || systemID != "" && there.SystemID != systemID || there.PostmasterStart.Equal(not):
		default:
			return Leader{Name: m.Name, Address: pgbini.Address{Host: m.Host, Port: uint16(m.Port)}, Identity: there}, nil
		}
	}
	return Leader{}, errors.Join(append([]error{ErrNoReplica}, errs...)...)
}

// readable are the members that Patroni would let others read from (GET /replica, 3.0 to 4.1), the one that lags least first.
func readable(c patroni.Cluster) []patroni.Member {
	members := slices.DeleteFunc(slices.Clone(c.Members), func(m patroni.Member) bool {
		hidden, _ := m.Tags["noloadbalance"].(bool)
		return m.Leader() || hidden || m.State != "running" && m.State != "streaming"
	})
	slices.SortStableFunc(members, func(a, b patroni.Member) int {
		switch {
		case a.Lag.Known != b.Lag.Known && a.Lag.Known:
			return -1
		case a.Lag.Known != b.Lag.Known:
			return 1
		}
		return int(max(min(a.Lag.Bytes-b.Lag.Bytes, 1), -1))
	})
	return members
}

// readersBack has the entries for reading lead to this member's server again, once that takes questions. While somebody holds the pooler it
// is his to say where they lead.
func (x *watched) readersBack(ctx context.Context, mark *pgb.Mark) error {
	if !x.readers.Moves() || mark != nil || time.Since(x.readersAt) < lookLeader {
		return nil
	}
	x.readersAt = time.Now()
	if leads, err := x.readers.LeadsTo(ctx, x.readers.Local()); err != nil || leads {
		return err
	}
	local, err := x.w.m.Server()
	if err != nil {
		return err
	}
	if _, err := member.Identify(ctx, local); err != nil {
		return nil // it is not back
	}
	moved, err := x.readers.Move(ctx, x.readers.Local())
	if moved && err == nil {
		x.w.log.Info("this member's server is back: its readers go on there", "pooler", x.readers.Name)
	}
	return err
}
