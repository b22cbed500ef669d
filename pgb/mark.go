package pgb

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/pgbaton/pgbaton/peer"
)

// Owner says who made a pause.
type Owner int

const (
	// Guard is a pause of before_stop. The callback of the new primary ends it.
	Guard Owner = 3
	// Hand is a pause that a person or an operator made with pgbaton. They end it, or its lease.
	Hand Owner = 5
	// Foreign is a pause that was there before the guard came, of psql say. Whoever made it ends it.
	Foreign Owner = 7
	// Readers is a pause of before_stop on a replica: those who read there wait until it is back. The keeper on that member ends it.
	Readers Owner = 9
)

// Owners are those whose pauses have a lease.
func Owners() []Owner { return []Owner{Guard, Hand, Readers} }

func (o Owner) String() string {
	switch o {
	case Guard:
		return "guard"
	case Hand:
		return "hand"
	case Foreign:
		return "foreign"
	case Readers:
		return "readers"
	}
	return "unknown"
}

// Mark is what a pooler carries while pgbaton holds it: a value of server_login_retry that is
// practically zero and that holds the value it replaced, who paused, and which pause it was.
//
// It is a number of microseconds below 0.1 s,
//
//	100 × original in tenths of a second + 10 × nonce (0 to 9) + owner (3, 5, 7 or 9)
//	15.0 s, nonce 4, guard → 15043 µs → '0.015043'
//
// so any member can put the setting back without having seen it before, and a lease keeper can tell
// its own pause from a later one. The last digit is never 0, which no value that a person would write
// has at that place. PgBouncer keeps the setting in microseconds and prints six significant digits,
// of which five are used (1.18.0, 1.24.1, 1.26.1).
type Mark struct {
	Original time.Duration // server_login_retry before the pause; a multiple of 100 ms, at most 99.9 s
	Nonce    int           // 0 to 9
	Owner    Owner
}

const (
	markUnit   = 100 * time.Millisecond
	maxCarried = 999 * markUnit
)

// CanCarry reports whether a mark can hold this value of server_login_retry. For others (a fraction
// of a tenth of a second, or more than 99.9 s) the setting is left alone.
func CanCarry(original time.Duration) bool {
	return original >= 0 && original <= maxCarried && original%markUnit == 0
}

// value is the mark as a value for SET. PgBouncer multiplies it by a million and cuts the rest off, which makes
// 506 µs of 0.000507; so it gets a fifth of a microsecond more, which SHOW CONFIG does not show.
func (m Mark) value() string {
	us := int64(m.Original/markUnit)*100 + int64(m.Nonce%10)*10 + int64(m.Owner)
	return fmt.Sprintf("0.%06d2", us)
}

// parseMark takes apart a value of SHOW CONFIG. It reports false for a value that is no mark.
func parseMark(value string) (Mark, bool) {
	seconds, err := strconv.ParseFloat(value, 64)
	if err != nil || seconds <= 0 || seconds >= 0.1 {
		return Mark{}, false
	}
	us := int64(math.Round(seconds * 1e6))
	if math.Abs(seconds*1e6-float64(us)) > 1e-3 {
		return Mark{}, false
	}
	m := Mark{
		Original: time.Duration(us/100) * markUnit,
		Nonce:    int(us / 10 % 10),
		Owner:    Owner(us % 10),
	}
	switch m.Owner {
	case Guard, Hand, Foreign, Readers:
		return m, true
	}
	return Mark{}, false
}

// parseSeconds reads a time setting as SHOW CONFIG prints it.
func parseSeconds(value string) (time.Duration, error) {
	seconds, err := strconv.ParseFloat(value, 64)
	if err != nil || math.IsNaN(seconds) || seconds < 0 || seconds > 1e9 {
		return 0, fmt.Errorf("not a number of seconds: %q", peer.Text(value))
	}
	return time.Duration(math.Round(seconds*1e6)) * time.Microsecond, nil
}

// formatSeconds writes it as a value for SET.
func formatSeconds(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64)
}
