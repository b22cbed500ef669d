package httpapi

import (
	"errors"
	"strings"
	"testing"

	"github.com/pgbaton/pgbaton/api"
)

// TestRoute: who may read asks where the poolers lead, within bounds; where no pooler can be asked that is a problem, and no empty answer
// that would look as if there were nothing to wait for.
func TestRoute(t *testing.T) {
	a := start(t, &fake{}, nil)
	a.expect(a.do("GET", api.RoutePath, "", "Authorization: Bearer nonsense"), 401, "unauthenticated")
	for _, query := range []string{"looks=-1", "looks=13", "looks=x", "address=" + strings.Repeat("a", 301)} {
		a.expect(a.do("GET", api.RoutePath+"?"+query, "", "Authorization: Bearer "+readToken), 422, "invalid-request")
	}
	client := &api.Client{URL: a.url, Token: readToken, HTTP: a.client}
	_, err := client.Route(t.Context(), "", 3)
	if problem, ok := errors.AsType[*api.Problem](err); !ok || problem.Name() != "pooler-failed" {
		t.Errorf("%v", err)
	}
}
