package health

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/state"
)

// A pause whose keeper was killed is a problem for as long as it stands.
func TestLeaseWithoutAKeeper(t *testing.T) {
	t.Parallel()
	b := membertest.StartPooler(t, single.SuiteTrixie, membertest.SharedPostgres(t))
	m := membertest.New(t, nil, b)
	told := func() bool {
		return slices.ContainsFunc(Of(t.Context(), m).Problems, func(p string) bool {
			return strings.Contains(p, "the pause by hand has lost its keeper") && strings.Contains(p, "pgbaton resume")
		})
	}
	path := filepath.Join(m.Config.StateDir, "lease-hand.json")
	lease := map[string]any{"id": "a", "owner": pgb.Hand, "nonce": 4, "until": time.Now().Add(time.Minute), "for": time.Minute}
	if err := state.Write(path, lease); err != nil {
		t.Fatal(err)
	}
	if told() {
		t.Error("its pause is over")
	}
	membertest.Abandoned(t, m, pgb.Hand)
	if !told() {
		t.Error("nobody ends the pause, and status does not say so")
	}
	keeper, err := state.WriteLocked(path, lease)
	if err != nil {
		t.Fatal(err)
	}
	if told() {
		t.Error("its keeper lives")
	}
	keeper.Release()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	membertest.LetGo(m, b)
}
