package member

import (
	"fmt"
	"time"

	"github.com/pgbaton/pgbaton/config"
)

// LockMargin is how long before the leader lock can expire a guard must be gone: another member may be primary the moment it does, and a
// fast shutdown takes its time. What decides how long a stop may be held up (package hooks, decide.go) goes by it, and what tells people
// beforehand.
const LockMargin = 5 * time.Second

// CheckTTL says whether a guard may wait for budget when Patroni's leader lock lives for ttl. The error is a [*config.Error] that says what
// to change.
func CheckTTL(budget, ttl time.Duration) error {
	longest := ttl - LockMargin
	if budget <= longest {
		return nil
	}
	return &config.Error{
		Name: "pause.budget",
		Problem: fmt.Sprintf("pause.budget %s is longer than Patroni's ttl allows: ttl %s less %s = %s; "+
			"lower pause.budget or raise ttl (patronictl edit-config)", budget, ttl, LockMargin, longest),
	}
}
