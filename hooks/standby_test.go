package hooks

import (
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/postgres"
)

func TestJudgeStandbys(t *testing.T) {
	leader := patroni.Member{Name: "m1", Role: "leader", State: "running"}
	replica := func(name, state string, tags ...map[string]any) patroni.Member {
		m := patroni.Member{Name: name, Role: "replica", State: state, Tags: map[string]any{}}
		for _, t := range tags {
			m.Tags = t
		}
		return m
	}
	synchronous := func(m patroni.Member) patroni.Member { m.Role = "sync_standby"; return m }
	quorum := func(m patroni.Member) patroni.Member { m.Role = "quorum_standby"; return m }
	tag := func(name string, value any) map[string]any { return map[string]any{name: value} }
	of := func(members ...patroni.Member) *patroni.Cluster {
		return &patroni.Cluster{Members: append([]patroni.Member{leader}, members...)}
	}
	scheduled := func(c *patroni.Cluster, from, to string, in time.Duration) *patroni.Cluster {
		c.ScheduledSwitchover = &patroni.Switchover{At: t0.Add(in), From: from, To: to}
		return c
	}
	sends := func(name, state string, flushed int64) postgres.Sender {
		return postgres.Sender{Application: name, State: state, Flushed: flushed}
	}
	m2, m3 := replica("m2", "running"), replica("m3", "running")
	streams2, streams3 := sends("m2", "streaming", 100), sends("m3", "streaming", 100)
	for _, c := range []struct {
		name     string
		cluster  *patroni.Cluster
		recorded clusterRecord
		senders  []postgres.Sender
		slots    []string
		after    int64
		want     standbyKind
		who      string // is ready, or (after "-") does not stream; "" is not compared
		says     string
	}{
		{name: "one member", cluster: of(), want: nobodyElse},
		{name: "one member, a backup runs", cluster: of(), senders: []postgres.Sender{sends("pg_basebackup", "streaming", 1)},
			want: nobodyElse},
		{name: "both stream", cluster: of(m2, m3), senders: []postgres.Sender{streams2, streams3}, want: ready, who: "m2"},
		{name: "one of two streams", cluster: of(m2, m3), senders: []postgres.Sender{streams3}, want: ready, who: "m3"},
		{name: "a newer Patroni says streaming", cluster: of(replica("m2", "streaming")), senders: []postgres.Sender{streams2},
			want: ready, who: "m2"},
		{name: "nobody streams: a cluster that is seconds old", cluster: of(m2, m3), want: notReady, who: "-m2",
			says: "m2 (running) does not stream; m3 (running) does not stream"},
		{name: "its first backup still runs", cluster: of(m2), senders: []postgres.Sender{sends("pg_basebackup", "streaming", 1)},
			want: notReady, who: "-m2"},
		{name: "somebody streams who is no member", cluster: of(m2), senders: []postgres.Sender{sends("elsewhere", "streaming", 100)},
			want: notReady, who: "-m2"},
		{name: "catching up", cluster: of(m2), senders: []postgres.Sender{sends("m2", "catchup", 50)}, want: notReady,
			says: "m2 is not caught up (catchup)"},
		{name: "an old connection beside the new one", cluster: of(m2), senders: []postgres.Sender{sends("m2", "stopping", 50), streams2},
			want: ready, who: "m2"},
		{name: "nothing is running but this", cluster: of(replica("m2", "stopped"), replica("m3", "creating replica"), replica("m4",
			"start failed")), want: nobodyElse},
		{name: "may not be promoted", cluster: of(replica("m2", "running", tag("nofailover", true))), want: nobodyElse},
		{name: "may not be promoted, and streams; the other does not", cluster: of(replica("m2", "running", tag("nofailover", true)), m3),
			senders: []postgres.Sender{streams2}, want: notReady, who: "-m3"},
		{name: "priority 0", cluster: of(replica("m2", "running", tag("failover_priority", 0.0))), want: nobodyElse},
		{name: "priority 0, and nofailover false, which counts", cluster: of(replica("m2", "running",
			map[string]any{"failover_priority": 0.0, "nofailover": false})), want: notReady},
		{name: "never streams by its tags", cluster: of(replica("m2", "running", tag("nostream", true))), want: nobodyElse},
		{name: "cascade", cluster: of(replica("m2", "running", tag("nofailover", true)), replica("m3", "running", tag("replicatefrom",
			"m2"))), senders: []postgres.Sender{streams2}, want: ready, who: "m3"},
		{name: "cascade from one that is not there", cluster: of(replica("m3", "running", tag("replicatefrom", "gone"))),
			senders: []postgres.Sender{streams3}, want: ready, who: "m3"},
		{name: "cascade in a circle", cluster: of(replica("m2", "running", tag("replicatefrom", "m3")), replica("m3", "running",
			tag("replicatefrom", "m2"))), want: notReady},
		{name: "the synchronous one streams", cluster: of(m2, synchronous(m3)), senders: []postgres.Sender{streams3}, want: ready,
			who: "m3"},
		{name: "only the asynchronous one streams, which may not be promoted", cluster: of(m2, synchronous(m3)),
			senders: []postgres.Sender{streams2}, want: notReady, who: "-m3"},
		{name: "quorum", cluster: of(quorum(m2), quorum(m3)), senders: []postgres.Sender{streams3}, want: ready, who: "m3"},
		{name: "has what it must", cluster: of(m2), senders: []postgres.Sender{streams2}, after: 100, want: ready, who: "m2"},
		{name: "has it not yet", cluster: of(m2), senders: []postgres.Sender{streams2}, after: 101, want: notReady,
			says: "m2 lags 1 bytes behind"},
		{name: "has never said", cluster: of(m2), senders: []postgres.Sender{sends("m2", "streaming", -1)}, after: 1, want: notReady},
		{name: "scheduled: the candidate streams", cluster: scheduled(of(m2, m3), "m1", "m3", 0), senders: []postgres.Sender{streams3},
			want: ready, who: "m3"},
		{name: "scheduled: only another one streams", cluster: scheduled(of(m2, m3), "m1", "m3", -5*time.Second),
			senders: []postgres.Sender{streams2}, want: notReady, who: "-m3"},
		{name: "scheduled for tomorrow: not this stop", cluster: scheduled(of(m2, m3), "m1", "m3", 24*time.Hour),
			senders: []postgres.Sender{streams2}, want: ready, who: "m2"},
		{name: "scheduled, to anybody", cluster: scheduled(of(m2, m3), "m1", "", 0), senders: []postgres.Sender{streams2}, want: ready,
			who: "m2"},

		{name: "Patroni silent, somebody streams", senders: []postgres.Sender{streams2}, want: ready, who: "m2"},
		{name: "Patroni silent, nobody was ever seen", want: nobodyElse},
		{name: "Patroni silent, a backup runs", senders: []postgres.Sender{sends("pg_basebackup", "streaming", 1)}, want: nobodyElse},
		{name: "Patroni silent, somebody is connected for replication and gets nothing", senders: []postgres.Sender{sends("", "startup",
			-1)}, want: nobodyElse},
		{name: "Patroni silent, a slot without its standby", slots: []string{"m2"}, want: notReady, says: "slots are there for m2"},
		{name: "Patroni silent, a slot of the operator's", slots: []string{"barman"},
			recorded: clusterRecord{OtherSlots: []string{"barman"}}, want: nobodyElse},
		{name: "Patroni silent, members were seen", recorded: clusterRecord{Others: []string{"m2"}}, want: notReady, who: "-m2"},
		{name: "Patroni silent, members were seen, one streams", recorded: clusterRecord{Others: []string{"m2", "m3"}},
			senders: []postgres.Sender{streams3}, want: ready, who: "m3"},
		{name: "Patroni silent, catching up", recorded: clusterRecord{Others: []string{"m2"}}, senders: []postgres.Sender{sends("m2",
			"catchup", 1)}, want: notReady, says: "not caught up"},
		{name: "Patroni silent, has it not yet", senders: []postgres.Sender{streams2}, after: 101, want: notReady},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := judgeStandbys(standbyView{now: t0, cluster: c.cluster, self: "m1", recorded: c.recorded,
				replication: postgres.Replication{Written: 200, Senders: c.senders, Slots: c.slots}, after: c.after})
			if got.kind != c.want || !strings.Contains(got.reason, c.says) {
				t.Errorf("got %d (%q), want %d (%q)", got.kind, got.reason, c.want, c.says)
			}
			if who, missed := strings.CutPrefix(
				c.who,
				"-",
			); missed && (len(got.missed) == 0 || got.missed[0] != who) ||
				!missed && c.who != "" && got.name != who {
				t.Errorf("got %+v, want %s", got, c.who)
			}
			if got.kind == notReady && got.reason == "" {
				t.Error("no reason")
			}
		})
	}
}

func TestSlotName(t *testing.T) {
	for member, want := range map[string]string{ // by Patroni's slot_name_from_member_name
		"m2": "m2", "Node-1.example": "node_1_example", "ü x": "u0252u0032x", strings.Repeat("a", 70): strings.Repeat("a", 63),
	} {
		if got := slotName(member); got != want {
			t.Errorf("%s: %s, want %s", member, got, want)
		}
	}
}
