package hooks

import (
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/postgres"
)

func TestJudge(t *testing.T) {
	const moment, long = 10 * time.Millisecond, time.Minute
	for name, c := range map[string]struct {
		seen        []sight
		waited, led time.Duration
		want        string
	}{
		"here":                                       {[]sight{leadsHere}, moment, moment, ledHere},
		"nothing seen yet":                           {[]sight{notSeen}, long, 0, ""},
		"not looked at one yet":                      {[]sight{leadsHere, notSeen}, long, long, ""},
		"the old primary":                            {[]sight{leadsElsewhere}, long, 0, ""},
		"no server":                                  {[]sight{refuses}, long, 0, ""},
		"a reader's beside":                          {[]sight{leadsHere, standsBy}, moment, moment, ledHere},
		"another cluster's beside":                   {[]sight{otherSystem, leadsHere}, moment, moment, ledHere},
		"one where we may not log in":                {[]sight{leadsHere, notLetIn}, moment, moment, ledHere},
		"log in nowhere":                             {[]sight{notLetIn, notLetIn}, moment, 0, notChecked},
		"readers only":                               {[]sight{standsBy}, moment, 0, ""},
		"readers only, after the grace":              {[]sight{standsBy}, routeGrace, 0, noneForUs},
		"one leads elsewhere":                        {[]sight{leadsHere, leadsElsewhere}, long, routeGrace - moment, ""},
		"one leadsElsewhere, after the grace":        {[]sight{leadsHere, leadsElsewhere}, long, routeGrace, ledPartly},
		"it led here, and does not now":              {[]sight{leadsElsewhere}, long, routeGrace, ""},
		"in a cache":                                 {[]sight{leadsHere, expires}, long, long, ""},
		"unreachable beside":                         {[]sight{leadsHere, noAnswer}, routeGrace, routeGrace, ledPartly},
		"unreachable all of them":                    {[]sight{noAnswer, noAnswer}, routeUnreachable, 0, notReachable},
		"unreachable, and may move":                  {[]sight{noAnswer}, routeUnreachable - moment, 0, ""},
		"one unreachable, the other leads elsewhere": {[]sight{noAnswer, leadsElsewhere}, long, 0, ""},
		"unreachable and a reader's":                 {[]sight{noAnswer, standsBy}, routeUnreachable, 0, notReachable},
	} {
		if got := judge(c.seen, c.waited, c.led); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestStoodBefore(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(1_800_000_000+s), 0) }
	here := postgres.Replay{Up: time.Hour, LastXact: at(100)}
	for name, c := range map[string]struct {
		theirs, ours postgres.Replay
		since        time.Duration
		restarted    bool
		want         bool
	}{
		"a standby":                         {postgres.Replay{Up: time.Hour, LastXact: at(100)}, here, time.Second, false, true},
		"a standby that lags":               {postgres.Replay{Up: time.Hour, LastXact: at(50)}, here, time.Second, false, true},
		"the old primary, stopped and back": {postgres.Replay{Up: 3 * time.Second}, here, 4 * time.Second, false, false},
		"the old primary, back before us":   {postgres.Replay{Up: 10 * time.Second}, here, time.Second, false, false},
		"the old primary, and it has caught up": {postgres.Replay{Up: 10 * time.Second, LastXact: at(101)}, here, time.Second, false,
			false},
		"the old primary, after a crash": {postgres.Replay{Up: 3 * time.Second, LastXact: at(100)}, here, 4 * time.Second, false,
			false},
		"nothing replayed here": {here, postgres.Replay{Up: time.Hour}, time.Second, false, false},
		"restart in place": {postgres.Replay{Up: time.Hour}, postgres.Replay{Up: time.Second}, time.Second, true,
			true},
		"restart in place, both": {postgres.Replay{Up: time.Second}, here, time.Second, true, false},
	} {
		if got := stoodBefore(c.theirs, c.ours, c.since, c.restarted); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
