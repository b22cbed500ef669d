package lab

import (
	"testing"
	"time"
)

// TestArrival: a look that waits for a server does not hide those that began later and have arrived.
func TestArrival(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	for name, c := range map[string]struct {
		looks []routeLook
		leads string
		since time.Time
	}{
		"none":                 {},
		"one that waits":       {[]routeLook{{at(1), at(2), "old"}, {at(3), at(900), "new"}, {at(20), at(25), "new"}}, "new", at(25)},
		"to and fro":           {[]routeLook{{at(1), at(2), "new"}, {at(3), at(4), "old"}, {at(5), at(6), "new"}}, "new", at(6)},
		"no answer in between": {[]routeLook{{at(1), at(2), "new"}, {at(3), at(1003), ""}, {at(5), at(6), "new"}}, "new", at(6)},
		"not there at the end": {[]routeLook{{at(1), at(2), "new"}, {at(3), at(4), ""}}, "", at(4)},
	} {
		if leads, since := arrival(c.looks); leads != c.leads || !since.Equal(c.since) {
			t.Errorf("%s: %q since %v, want %q since %v", name, leads, since, c.leads, c.since)
		}
	}
}
