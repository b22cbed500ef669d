package hooks

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/postgres"
)

// makeSlots makes the replication slots that standbys wait for: Patroni would do it in its next loop, which does not come while before_stop
// runs (ha.py, 4.0.7 and 4.1.5). They are named as Patroni names them, so it takes them for its own, and hold no WAL before they are used.
func (g *guard) makeSlots(ctx context.Context, members []string) {
	for _, name := range members {
		slot := slotName(name)
		if slices.Contains(g.slotsMade, slot) {
			continue
		}
		g.slotsMade = append(g.slotsMade, slot)
		g.mu.Lock()
		unused := g.recorded.NoSlots
		g.mu.Unlock()
		if unused {
			continue
		}
		made, err := g.createSlot(ctx, slot)
		if err != nil {
			g.log.Debug("cannot make a replication slot", "slot", slot, "error", err)
		}
		if !made {
			continue
		}
		g.log.Info("made the replication slot of a standby; Patroni would have in its next loop", "slot", slot)
	}
}

func (g *guard) createSlot(ctx context.Context, name string) (made bool, err error) {
	err = g.askServer(ctx, func(ctx context.Context) error {
		var err error
		made, err = g.local.CreatePhysicalSlot(ctx, name)
		return err
	})
	return made, err
}

// makeOwnSlot makes the slot of this standby on the leader, when it has just been started or become one. Patroni does it in the leader's
// next loop; until then nothing streams here, and nothing on the leader tells that somebody may be promoted: a guard there that Patroni's
// SIGTERM has called (its REST API answers nothing then) would have no reason to wait. It blocks for some seconds at most; where it cannot
// log in to the leader, Patroni's loop is left to do it.
func makeOwnSlot(ctx context.Context, m *member.Member, log *slog.Logger) {
	slot, leader, err := ownSlot(ctx, m)
	if err != nil || slot == "" {
		log.Debug("no replication slot is made on the leader", "error", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, member.LookTimeout)
	defer cancel()
	conn, err := leader.Connect(ctx)
	if err == nil {
		defer conn.Close()
		var made bool
		if made, err = conn.CreatePhysicalSlot(ctx, slot); made {
			log.Info("made this standby's replication slot on the leader; Patroni would have in its next loop", "slot", slot)
		}
	}
	if err != nil {
		log.Info("cannot make this standby's replication slot on the leader; Patroni does in its next loop", "slot", slot, "error", err)
	}
}

// ownSlot asks this member's Patroni for the leader, and for the slot that it has for us: "" where it has none.
func ownSlot(ctx context.Context, m *member.Member) (slot string, leader *postgres.Server, err error) {
	client, err := m.Patroni()
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*member.RestTimeout)
	defer cancel()
	health, err := client.Leader(ctx)
	if err != nil {
		return "", nil, err
	}
	cluster, err := client.Cluster(ctx)
	if err != nil {
		return "", nil, err
	}
	dynamic, err := client.Dynamic(ctx)
	if err != nil || recordOf(cluster, health.Name, dynamic).NoSlots {
		return "", nil, err
	}
	slot, address, ok := slotOnLeader(cluster, health.Name)
	if !ok {
		return "", nil, nil
	}
	local, err := m.Server()
	if err != nil {
		return "", nil, err
	}
	return slot, local.At(address), nil
}

// slotOnLeader is the slot that the primary keeps for a standby, and where that is. There is none for one that streams from another
// standby, or not at all (get_members in dcs/__init__.py, 4.0.7 and 4.1.5).
func slotOnLeader(cluster patroni.Cluster, self string) (slot string, at postgres.Address, ok bool) {
	leader, led := cluster.Leader()
	i := slices.IndexFunc(cluster.Members, func(m patroni.Member) bool { return m.Name == self })
	if !led || leader.Role != "leader" || leader.Name == self || leader.Port <= 0 || leader.Port > 65535 || i < 0 {
		return "", postgres.Address{}, false
	}
	me := cluster.Members[i]
	if truth(me.Tags["nostream"]) || upstream(me, cluster.Members) != self {
		return "", postgres.Address{}, false
	}
	return slotName(self), postgres.Address{Host: leader.Host, Port: uint16(leader.Port)}, true
}

// slotName is the name of the replication slot that Patroni makes for a member (slot_name_from_member_name in dcs/__init__.py, 4.0.7 and
// 4.1.5).
func slotName(member string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(member) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_':
			b.WriteRune(c)
		case c == '-', c == '.':
			b.WriteByte('_')
		default:
			fmt.Fprintf(&b, "u%04d", c)
		}
	}
	return b.String()[:min(b.Len(), 63)]
}
