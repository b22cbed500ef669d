package postgres_test

import (
	"slices"
	"testing"

	"github.com/pgbaton/pgbaton/postgres"
)

func TestNotReady(t *testing.T) {
	slot := func(name string, needs uint32) postgres.LogicalSlot {
		return postgres.LogicalSlot{Name: name, Needs: needs}
	}
	primary := postgres.Slots{Logical: []postgres.LogicalSlot{slot("mine", 700), slot("sub", 700)}, Held: map[string]uint32{"m2": 650}}
	for _, c := range []struct {
		name    string
		standby postgres.Slots
		held    uint32
		want    []string
	}{
		{"no copy", postgres.Slots{Receiver: "m2"}, 650, []string{"sub"}},
		{"a copy for which nothing is kept", postgres.Slots{Receiver: "m2", Logical: []postgres.LogicalSlot{slot("sub", 650)}}, 0,
			[]string{"sub"}},
		{"a copy that needs more than is kept", postgres.Slots{Receiver: "m2", Logical: []postgres.LogicalSlot{slot("sub", 640)}}, 650,
			[]string{"sub"}},
		{"a copy that is kept", postgres.Slots{Receiver: "m2", Logical: []postgres.LogicalSlot{slot("sub", 650)}}, 650, nil},
		{"one across the end of the ids", postgres.Slots{Receiver: "m2", Logical: []postgres.LogicalSlot{slot("sub", 5)}}, 1<<32 - 5, nil},
		{"one that the server keeps itself", postgres.Slots{Receiver: "m2",
			Logical: []postgres.LogicalSlot{{Name: "sub", Synced: true, Needs: 640}}}, 650, nil},
		{"of a standby of a standby it is not known", postgres.Slots{Receiver: "m3",
			Logical: []postgres.LogicalSlot{slot("sub", 640)}}, 650, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			primary.Held["m2"] = c.held
			got := postgres.NotReady(primary, c.standby, func(s postgres.LogicalSlot) bool { return s.Name == "sub" })
			if !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}
