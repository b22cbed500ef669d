package httpapi

import (
	"sync"
	"testing"

	"github.com/pgbaton/pgbaton/api"
)

// TestCheck: everybody who may read gets a check, and those who ask at the same time share one.
func TestCheck(t *testing.T) {
	release := make(chan struct{})
	f := &fake{check: func() { <-release }}
	a := start(t, f, nil)
	client := &api.Client{URL: a.url, Token: readToken, HTTP: a.client}
	const callers = 5
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			r, err := client.Check(t.Context())
			if err != nil || r.Member != "m1" || r.OK || len(r.Findings) != 1 || r.Findings[0].ID != "no-poolers" {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	eventually(t, "all of them wait", func() bool { return len(a.server.slots) == callers })
	close(release)
	all.Wait()
	if n := f.checks.Load(); n != 1 {
		t.Errorf("%d checks for %d who asked at the same time", n, callers)
	}
	a.expect(a.do("GET", api.CheckPath, "", "Authorization: Bearer nonsense"), 401, "unauthenticated")
}
