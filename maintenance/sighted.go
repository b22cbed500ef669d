package maintenance

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/state"
)

// sighting is another run's entry as this member saw it, and when: a run that lives counts its entry on once a minute. Only time that has
// passed on this machine counts, no clock of another one.
type sighting struct {
	Renewed int           `json:"renewed"`
	Boot    string        `json:"boot"` // of this machine
	Up      time.Duration `json:"up"`   // since then, time asleep too
}

const sightedName = "cluster-runs.json"

// sighted remembers the runs of others that were seen, and says whether an entry has stood still for long enough to be that of a run that
// was killed.
func sighted(m *member.Member, id string, e entry) (stale bool, killed string) {
	killed = fmt.Sprintf("if it was killed, `pgbaton %s --resume` on member %s goes on with it", command(e.Kind), e.Member)
	if m.Config.StateDir == "" {
		return false, killed
	}
	path := filepath.Join(m.Config.StateDir, sightedName)
	boot, up := uptime()
	if boot == "" {
		return false, killed
	}
	seen := map[string]sighting{}
	_ = state.Read(path, &seen)
	before, ok := seen[id]
	if ok && before.Boot == boot && before.Renewed == e.Renewed {
		if up-before.Up >= staleAfter {
			return true, ""
		}
	} else {
		if err := state.Write(path, map[string]sighting{id: {e.Renewed, boot, up}}); err != nil {
			return false, killed
		}
		before.Up = up
	}
	left := max(time.Second, (staleAfter - (up - before.Up)).Round(time.Second))
	return false, killed + fmt.Sprintf("; or start this again in %s: it takes over if that run has not stirred until then", left)
}

// uptime is which boot of this machine this is, and for how long it has been up; "" where it cannot be told.
func uptime() (boot string, up time.Duration) {
	id, err := file.Read("/proc/sys/kernel/random/boot_id", 100)
	var now unix.Timespec
	if err != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return "", 0
	}
	return strings.TrimSpace(string(id)), time.Duration(now.Nano())
}
