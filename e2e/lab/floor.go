package lab

import (
	"fmt"
	"strings"
	"time"
)

// Floor is what PostgreSQL and Patroni alone take for a switchover, by their own logs. Clients wait at least that long, whoever pauses the
// poolers. The times of the logs have milliseconds.
type Floor struct {
	Shutdown  time.Duration // of the old primary: from the request for a fast shutdown until it is down
	Lock      time.Duration // from there until the new primary has the leader key
	Promotion time.Duration // from there until the new primary takes writes
}

// Total is the whole floor.
func (f Floor) Total() time.Duration { return f.Shutdown + f.Lock + f.Promotion }

// The texts are those of PostgreSQL 15 to 18 and of Patroni 3.0 to 4.1. The second one of Patroni is for a switchover whose failover key
// somebody else has removed, and comes some ten milliseconds later.
var floorMarks = []struct {
	of    string // the member: from, to
	log   string
	texts []string
}{
	{"from", "postgresql", []string{"received fast shutdown request"}},
	{"from", "postgresql", []string{"database system is shut down"}},
	{"to", "patroni", []string{"after acquiring leader lock", "promoted self to leader by acquiring session lock"}},
	{"to", "postgresql", []string{"database system is ready to accept connections"}}, // a standby's are read-only ones
}

// SwitchoverFloor reads the floor of the first switchover between two members out of a time line. The error names what the logs do not say.
func SwitchoverFloor(events []Event, from, to string) (Floor, error) {
	at := make([]time.Time, len(floorMarks))
	next := 0 // event
	for i, mark := range floorMarks {
		source := from + " " + mark.log
		if mark.of == "to" {
			source = to + " " + mark.log
		}
		for ; next < len(events) && at[i].IsZero(); next++ {
			if e := events[next]; e.Source == source {
				for _, text := range mark.texts {
					if strings.Contains(e.Text, text) {
						at[i] = e.At
					}
				}
			}
		}
		if at[i].IsZero() {
			return Floor{}, fmt.Errorf("the log %q does not have %q in its place", source, mark.texts[0])
		}
	}
	return Floor{Shutdown: at[1].Sub(at[0]), Lock: at[2].Sub(at[1]), Promotion: at[3].Sub(at[2])}, nil
}
