package pause

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/process"
	"github.com/pgbaton/pgbaton/state"
)

// lease is a pause that ends by itself: whose pause it is, where its poolers are, and until when it may last. The pauser tells it to its
// keeper, one JSON value a line, and the keeper leaves it in the state directory for status, and for a person.
type lease struct {
	ID        string              `json:"id"` // of the pause, in the journal
	Owner     pgb.Owner           `json:"owner"`
	Nonce     int                 `json:"nonce"`               // of the pause's mark on the poolers
	Book      member.AddressBook  `json:"book"`                // where the poolers were found
	Databases map[string][]string `json:"databases,omitempty"` // that are paused, by pooler, where not all are
	Until     time.Time           `json:"until"`               // zero: nothing is paused; for people to read
	For       time.Duration       `json:"for"`                 // the same, from when the keeper reads it: no step of the clock changes it
	Since     time.Time           `json:"since"`
	Origin    origin              `json:"origin,omitzero"`  // of a handover
	Replica   Replica             `json:"replica,omitzero"` // whose readers wait
}

// leaseFile is the name of the lease's file in the state directory.
func leaseFile(owner pgb.Owner) string { return "lease-" + owner.String() + ".json" }

// keeperLink is the pauser's link to its keeper. The keeper goes by the last lease that it was told when the pauser ends or is killed.
type keeperLink struct {
	lease   lease
	encoder *json.Encoder
	process *process.Detached
}

// startKeeper starts the keeper of a lease and blocks until it is ready, about 20 ms, 2 s at most. Without a keeper nothing may be paused.
func startKeeper(m *member.Member, quiet bool, l lease) (*keeperLink, error) {
	greeting, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	keeper, err := m.StartDetached(quiet, string(greeting)+"\n", member.KeepCommand)
	if err != nil {
		return nil, fmt.Errorf("the lease keeper cannot be started: %w", err)
	}
	return &keeperLink{lease: l, process: keeper, encoder: json.NewEncoder(keeper.Stdin)}, nil
}

// extend says that a pause of ours may last until then. The error says that the keeper has ended.
func (k *keeperLink) extend(until time.Time) error {
	k.lease.Since, k.lease.Until, k.lease.For = time.Now(), until, time.Until(until)
	return k.encoder.Encode(k.lease)
}

// keptTimeout is for the keeper to write its lease, which takes milliseconds.
const keptTimeout = 500 * time.Millisecond

// kept waits until the keeper has written the lease that it was told last: from then on it is taken up where the keeper is killed. It
// blocks for keptTimeout at most, as a disk may be full, and not without a state directory.
func (k *keeperLink) kept(ctx context.Context, m *member.Member) {
	ctx, cancel := context.WithTimeout(ctx, keptTimeout)
	defer cancel()
	for m.Config.StateDir != "" && ctx.Err() == nil {
		if l, ok := readLease(m, k.lease.Owner); ok && l.ID == k.lease.ID {
			return
		}
		member.Sleep(ctx, 2*time.Millisecond)
	}
}

// clear says that nothing of ours is paused. The error says that the keeper has ended.
func (k *keeperLink) clear() error {
	k.lease.Until = time.Time{}
	return k.encoder.Encode(k.lease)
}

// leave closes the link: from now on the keeper watches the poolers itself.
func (k *keeperLink) leave() { _ = k.process.Stdin.Close() }

// EndLease tells a keeper of this member that its pause was ended. One that can look at the poolers sees that for itself.
func EndLease(m *member.Member, owner pgb.Owner) {
	if m.Config.StateDir != "" {
		_ = os.Remove(filepath.Join(m.Config.StateDir, leaseFile(owner)))
	}
}

// Leases are those of this member that its state directory knows of, also one whose keeper was killed.
func Leases(m *member.Member) []api.LeaseStatus {
	if m.Config.StateDir == "" {
		return nil
	}
	var found []api.LeaseStatus
	for _, owner := range pgb.Owners() {
		if l, ok := readLease(m, owner); ok {
			gone := !state.Locked(filepath.Join(m.Config.StateDir, leaseFile(owner)))
			found = append(found, api.LeaseStatus{Owner: owner.String(), Since: l.Since, Until: l.Until, KeeperGone: gone})
		}
	}
	return found
}

// readLease is this member's own lease for an owner of pauses; ok is false where it has none.
func readLease(m *member.Member, owner pgb.Owner) (l lease, ok bool) {
	if m.Config.StateDir == "" {
		return l, false
	}
	err := state.Read(filepath.Join(m.Config.StateDir, leaseFile(owner)), &l)
	return l, err == nil
}
