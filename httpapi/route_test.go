package httpapi

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

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

// TestRouteHalfClosed: who sends a request and closes its half of the connection gets the answer, also where it has to wait for its turn
// (net/http ends the request's context at once).
func TestRouteHalfClosed(t *testing.T) {
	a := start(t, &fake{}, nil)
	a.server.lookAlong = func(ctx context.Context, _ string, _ int) (api.RouteReport, error) {
		return api.RouteReport{Addresses: []api.RouteAddress{}}, ctx.Err()
	}
	for range routeTurns {
		a.server.routeTurns <- struct{}{}
	}
	c, err := net.Dial("tcp", a.server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write([]byte("GET " + api.RoutePath + " HTTP/1.1\r\nHost: " + a.server.Addr().String() +
		"\r\nAuthorization: Bearer " + readToken + "\r\n\r\n"))
	_ = c.(*net.TCPConn).CloseWrite()
	_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	answers := bufio.NewReader(c)
	if _, err := answers.Peek(1); err == nil {
		t.Error("answered before its turn")
	}
	for range routeTurns {
		<-a.server.routeTurns
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	answer, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("%s", answer.Status)
	}
}
