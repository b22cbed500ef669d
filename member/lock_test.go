package member

import (
	"testing"
	"time"
)

func TestCheckTTL(t *testing.T) {
	if err := CheckTTL(25*time.Second, 30*time.Second); err != nil {
		t.Error(err)
	}
	err := CheckTTL(40*time.Second, 30*time.Second)
	if want := "pause.budget 40s is longer than Patroni's ttl allows: ttl 30s less 5s = 25s; lower pause.budget or raise ttl " +
		"(patronictl edit-config)"; err == nil ||
		err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
