package httpapi

import (
	"strings"
	"testing"

	"github.com/pgbaton/pgbaton/follow"
)

// A load balancer is answered alike however it asks: HAProxy sends OPTIONS where nobody has told it otherwise. It asks every second of every
// member, so its answers are no warnings.
func TestBalancers(t *testing.T) {
	a := start(t, &fake{}, nil)
	for told, want := range map[follow.Route]int{follow.RouteOpen: 200, follow.RouteForwarded: 404, follow.RouteDown: 503} {
		a.server.primaryRoute = func() follow.Route { return told }
		for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
			if got := a.do(method, "/route/primary", ""); got.status != want {
				t.Errorf("%s, %s: %d, want %d", method, told, got.status, want)
			}
		}
	}
	if got := a.out.String(); strings.Contains(got, "level=WARN") {
		t.Errorf("it warns:\n%s", got)
	}
}
