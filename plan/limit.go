package plan

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// DefaultLimit is the replay lag that a candidate may have where nothing else is said: 16 MiB, one WAL file, which a standby replays in
// about a second.
func DefaultLimit() Limit { return Limit{Bytes: 16 << 20} }

// Limit is how far a standby may be behind with its replay. The zero value is none.
type Limit struct {
	Bytes int64         `json:"bytes,omitempty"`
	Age   time.Duration `json:"age,omitempty"`
}

// ParseLimit reads a number of bytes ("64MB", "16MiB", "8192"; as in PostgreSQL, kB, MB, GB and TB are powers of 1024) or a time ("30s").
func ParseLimit(s string) (Limit, error) {
	unit := strings.TrimLeft(s, "0123456789")
	n, err := strconv.ParseInt(s[:len(s)-len(unit)], 10, 64)
	shifts := map[string]int{"": 0, "b": 0, "kb": 10, "kib": 10, "mb": 20, "mib": 20, "gb": 30, "gib": 30, "tb": 40, "tib": 40}
	shift, ok := shifts[strings.ToLower(strings.TrimSpace(unit))]
	if err == nil && ok && n > 0 && n <= math.MaxInt64>>shift {
		return Limit{Bytes: n << shift}, nil
	}
	if age, err := time.ParseDuration(s); err == nil && age > 0 {
		return Limit{Age: age}, nil
	}
	return Limit{}, fmt.Errorf("%q is neither a size (64MB) nor a time (30s)", s)
}

// String is what ParseLimit reads.
func (l Limit) String() string {
	switch {
	case l.Bytes > 0:
		return size(l.Bytes)
	case l.Age > 0:
		return l.Age.String()
	}
	return "none"
}

// exceeds says how a member is beyond the limit; "" when it is not.
func (l Limit) exceeds(m Member) string {
	switch {
	case l.Bytes > 0 && !m.Replay.Known:
		return "has an unknown replay lag"
	case l.Bytes > 0 && m.Replay.Bytes > l.Bytes:
		return fmt.Sprintf("has %s to replay (at most %s)", size(m.Replay.Bytes), l)
	case l.Age > 0 && m.ReplayAge > l.Age:
		return fmt.Sprintf("is %s behind with its replay (at most %s)", m.ReplayAge.Round(100*time.Millisecond), l)
	}
	return ""
}

// size writes bytes for people: in the largest unit in which it is at least 1.
func size(n int64) string {
	for _, unit := range []struct {
		name  string
		bytes int64
	}{{"GB", 1 << 30}, {"MB", 1 << 20}, {"kB", 1 << 10}} {
		if n >= unit.bytes {
			return strings.TrimSuffix(strconv.FormatFloat(float64(n)/float64(unit.bytes), 'f', 1, 64), ".0") + unit.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

// ParseVersion reads a version of PostgreSQL as Patroni does ("17.5", "9.6.24", "17") into the number that the server has for it (170005).
func ParseVersion(s string) (int, error) {
	wrong := fmt.Errorf("%q is no version of PostgreSQL: 17.5 is one", s)
	parts := strings.Split(s, ".")
	var n []int
	for _, p := range parts {
		i, err := strconv.Atoi(p)
		if err != nil || i < 0 || i > 99 {
			return 0, wrong
		}
		n = append(n, i)
	}
	switch {
	case len(n) == 1 && n[0] >= 10:
		return n[0] * 10000, nil
	case len(n) == 2 && n[0] >= 10:
		return n[0]*10000 + n[1], nil
	case len(n) == 3 && n[0] > 0 && n[0] < 10:
		return n[0]*10000 + n[1]*100 + n[2], nil
	}
	return 0, wrong
}
