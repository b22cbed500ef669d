package pause

import (
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

// lease is a pause's end that is sure to come: the pauser's side of the keeper. The keeper is ready before the first
// PAUSE is sent. While the pauser lives it says until when its pause may stand; when it ends, or is killed, the
// keeper goes by the last word.
type lease struct {
	order   leaseOrder
	encoder *json.Encoder
	keeper  *process.Detached
}

// leaseOrder is what the pauser tells its keeper, one JSON value a line.
type leaseOrder struct {
	ID        string              `json:"id"`
	Owner     pgb.Owner           `json:"owner"`
	Nonce     int                 `json:"nonce"`
	Book      member.AddressBook  `json:"book"`                // where the poolers were found
	Databases map[string][]string `json:"databases,omitempty"` // by pooler, where not all
	Until     time.Time           `json:"until"`               // zero: nothing of ours stands; for people to read
	For       time.Duration       `json:"for"`                 // the same, from when the order comes: no step of the clock changes it
	Since     time.Time           `json:"since"`
}

// leaseFile is where the order lies for status, and for a person.
func leaseFile(owner pgb.Owner) string { return "lease-" + owner.String() + ".json" }

// arm starts the keeper and blocks until it is ready, about 20 ms. Without a keeper nothing may be paused.
func arm(m *member.Member, quiet bool, order leaseOrder) (*lease, error) {
	greeting, err := json.Marshal(order)
	if err != nil {
		return nil, err
	}
	keeper, err := m.StartDetached(quiet, string(greeting)+"\n", member.KeepCommand)
	if err != nil {
		return nil, fmt.Errorf("the lease keeper cannot be started: %w", err)
	}
	return &lease{order: order, keeper: keeper, encoder: json.NewEncoder(keeper.Stdin)}, nil
}

// Extend says that a pause stands from now on and may last until then.
func (l *lease) Extend(until time.Time) error {
	l.order.Since, l.order.Until, l.order.For = time.Now(), until, time.Until(until)
	return l.encoder.Encode(l.order)
}

// Clear says that no pause of ours stands.
func (l *lease) Clear() error {
	l.order.Until = time.Time{}
	return l.encoder.Encode(l.order)
}

// leave lets the keeper watch on its own.
func (l *lease) leave() { _ = l.keeper.Stdin.Close() }

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
	for _, owner := range []pgb.Owner{pgb.Guard, pgb.Hand} {
		if order, ok := readLease(m, owner); ok {
			found = append(found, api.LeaseStatus{Owner: owner.String(), Since: order.Since, Until: order.Until})
		}
	}
	return found
}

// readLease is this member's own lease for an owner of pauses; ok is false where it has none.
func readLease(m *member.Member, owner pgb.Owner) (order leaseOrder, ok bool) {
	if m.Config.StateDir == "" {
		return order, false
	}
	err := state.Read(filepath.Join(m.Config.StateDir, leaseFile(owner)), &order)
	return order, err == nil
}
