package operation

import (
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/health"
	"github.com/pgbaton/pgbaton/state"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/configversion"
)

// TestJudgePause: what an interrupted pause has come to.
func TestJudgePause(t *testing.T) {
	began := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	entry := func(event, pooler, handover string) state.Entry {
		return state.Entry{Hook: "pause", Event: event, Pooler: pooler, Handover: handover, Time: began.Add(time.Second)}
	}
	all := func(handover string) state.Entry { return entry(state.EventAllDrained, "", handover) }
	paused := func(name string) api.PoolerStatus {
		return api.PoolerStatus{Pooler: name, Paused: "yes", PausedBy: "hand"}
	}
	free := func(name string) api.PoolerStatus { return api.PoolerStatus{Pooler: name, Paused: "no"} }
	dead := func(name string) api.PoolerStatus {
		return api.PoolerStatus{Pooler: name, Paused: "unknown", Error: "refused"}
	}
	old := api.PoolerStatus{Pooler: "a", Paused: "unknown", PausedBy: "hand"} // 1.18
	for name, test := range map[string]struct {
		poolers []api.PoolerStatus
		entries []state.Entry
		state   string
		final   bool
	}{
		"nothing was done":    {[]api.PoolerStatus{free("a")}, nil, api.Failed, true},
		"paused, not drained": {[]api.PoolerStatus{paused("a")}, []state.Entry{entry(state.EventPauseSent, "a", "x")}, api.Unknown, false},
		"paused and drained": {[]api.PoolerStatus{paused("a"), paused("b")}, []state.Entry{entry(state.EventDrained, "a", "x"),
			entry(state.EventDrained, "b", "x"), all("x")}, api.Succeeded, true},
		"one drained": {[]api.PoolerStatus{paused("a"), paused("b")}, []state.Entry{entry(state.EventDrained, "a", "x")}, api.Unknown,
			false},
		"those drained that are seen, and another is not found": {[]api.PoolerStatus{paused("a")}, []state.Entry{entry(state.EventDrained,
			"a",
			"x")}, api.Unknown, false},
		"drained by a later pause": {[]api.PoolerStatus{paused("a")}, []state.Entry{entry(state.EventPauseSent, "a",
			"x"), entry(state.EventDrained, "a", "y"), all("y")}, api.Unknown, false},
		"nothing done, a later pause": {[]api.PoolerStatus{free("a")}, []state.Entry{entry(state.EventDrained, "a",
			"y"), all("y")}, api.Failed, true},
		"drained, and over by now": {[]api.PoolerStatus{free("a")}, []state.Entry{entry(state.EventDrained, "a",
			"x"), all("x")}, api.Succeeded, true},
		"drained, a pooler is silent": {[]api.PoolerStatus{dead("a")}, []state.Entry{entry(state.EventDrained, "a",
			"x"), all("x")}, api.Succeeded, true},
		"taken back": {[]api.PoolerStatus{free("a")}, []state.Entry{entry(state.EventDrained, "a",
			"x"), entry(state.EventUndone, "a", "x")}, api.Failed, true},
		"a pooler is silent": {[]api.PoolerStatus{free("a"), dead("b")}, nil, api.Unknown, false},
		"taken back, a pooler is silent": {[]api.PoolerStatus{free("a"), dead("b")},
			[]state.Entry{entry(state.EventUndone, "a", "x")}, api.Unknown, false},
		"1.18": {[]api.PoolerStatus{old}, nil, api.Unknown, false},
		"single databases": {[]api.PoolerStatus{{Pooler: "a", Paused: "no", PausedBy: "hand",
			Databases: []string{"app"}}}, nil, api.Unknown, false},
		"some":       {[]api.PoolerStatus{paused("a"), free("b")}, nil, api.Unknown, false},
		"no poolers": {nil, nil, api.Unknown, false},
	} {
		got := judgePause(Operation{ID: "x", Kind: api.KindPause, Started: began},
			view{status: health.Status{Status: api.Status{Poolers: test.poolers}}, entries: test.entries})
		if got.state != test.state || got.final != test.final || got.text == "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	// Of which no address is known is not among those that answer.
	got := judgePause(
		Operation{ID: "x", Kind: api.KindPause, Started: began},
		view{
			status: health.Status{
				Status:     api.Status{Poolers: []api.PoolerStatus{free("a")}},
				Unresolved: []string{"pooler b: no such host"},
			},
			entries: nil,
		},
	)
	if got.state != api.Unknown || got.final {
		t.Errorf("%+v", got)
	}
}

func TestJudgeResume(t *testing.T) {
	for _, test := range []struct {
		pooler api.PoolerStatus
		state  string
		final  bool
	}{
		{api.PoolerStatus{Paused: "no"}, api.Succeeded, true},
		{api.PoolerStatus{Paused: "yes"}, api.Failed, true},
		{api.PoolerStatus{Paused: "no", Databases: []string{"a"}}, api.Failed, true},
		{api.PoolerStatus{Paused: "unknown", Error: "x"}, api.Unknown, false},
		{api.PoolerStatus{Paused: "unknown", Servers: 1}, api.Succeeded, true},
		{api.PoolerStatus{Paused: "unknown"}, api.Unknown, true},
	} {
		if got := judgeResume(
			Operation{},
			view{status: health.Status{Status: api.Status{Poolers: []api.PoolerStatus{test.pooler}}}},
		); got.state != test.state ||
			got.final != test.final {
			t.Errorf("%+v: %+v", test.pooler, got)
		}
	}
	got := judgeResume(Operation{}, view{status: health.Status{Status: api.Status{Poolers: []api.PoolerStatus{{Paused: "no"}}},
		Unresolved: []string{"pooler b: no such host"}}})
	if got.state != api.Unknown || got.final {
		t.Errorf("one is not found: %+v", got)
	}
}

// TestJudgeReload: what an interrupted reload has come to.
func TestJudgeReload(t *testing.T) {
	began := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	version := func(target, applied string) []api.VersionReport {
		report := api.VersionReport{Target: target}
		if v, err := configversion.Parse(applied); err == nil {
			report.Applied = &v
		}
		return []api.VersionReport{report}
	}
	for name, test := range map[string]struct {
		kind, asked, timeout string
		versions             []api.VersionReport
		after                time.Duration
		state                string
		final                bool
	}{
		"applied":                {api.KindReloadPostgres, "42", "30s", version("postgres", "42"), time.Second, api.Succeeded, true},
		"a newer one is applied": {api.KindReloadPgBouncer, "42", "30s", version("pgbouncer", "43"), time.Second, api.Succeeded, true},
		"the other target's":     {api.KindReloadPgBouncer, "42", "30s", version("postgres", "42"), time.Second, api.Unknown, true},
		"an older one":           {api.KindReloadPostgres, "42", "30s", version("postgres", "41"), time.Second, api.Unknown, false},
		"cannot be seen":         {api.KindReloadPostgres, "42", "30s", version("postgres", ""), time.Second, api.Unknown, false},
		"Patroni has not had its time": {api.KindReloadPostgres, "42", "30s", version("postgres", "41"), 36 * time.Second, api.Unknown,
			false},
		"its time is over": {api.KindReloadPostgres, "42", "30s", version("postgres", "41"), 38 * time.Second,
			api.Unknown, true},
		"the usual time-out": {api.KindReloadPostgres, "42", "", version("postgres", "41"), 2 * time.Minute, api.Unknown,
			false},
		"nobody goes on with a pooler": {api.KindReloadPgBouncer, "42", "30s", version("pgbouncer", "41"), time.Second, api.Unknown,
			true},
		"without a version nothing can be": {api.KindReloadPostgres, "", "30s", version("postgres", "42"), time.Second, api.Unknown, true},
	} {
		o := Operation{Kind: test.kind, Started: began, Request: api.OperationRequest{ConfigVersion: test.asked, Timeout: test.timeout}}
		s := health.Status{Status: api.Status{Versions: test.versions, Patroni: api.PatroniStatus{LoopWaitSeconds: 2}}}
		if got := judgeReload(o, view{status: s, now: began.Add(test.after)}); got.state != test.state || got.final != test.final ||
			got.text == "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
