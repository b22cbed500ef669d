package patroni_test

import (
	"testing"

	"github.com/pgbaton/pgbaton/patroni"
)

func TestOlderThan(t *testing.T) {
	for version, want := range map[string]bool{"3.0.2": true, "2.1.10": true, "3.0.3": false, "3.1.0": false, "4.1.0rc1": false,
		"3.0.2.dev": true, "": false, "3": false, "x.y.z": false} {
		if got := patroni.OlderThan(version, 3, 0, 3); got != want {
			t.Errorf("%q older than 3.0.3: %v", version, got)
		}
	}
}
