package patroni_test

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/hostile"
	"github.com/pgbaton/pgbaton/patroni"
)

// What can stand at the address of Patroni's REST API and mean harm: see package hostile.
func TestHostilePatroni(t *testing.T) { hostile.TryHTTP(t) }

// asHostileClient is what this test binary does as a client of a hostile Patroni: all that its REST API is asked. What is returned is what
// people see of it.
func asHostileClient() bool {
	do := func(what func(ctx context.Context, c *patroni.Client) (string, error)) func(string, int, time.Duration) string {
		return func(host string, port int, limit time.Duration) string {
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			url := "http://" + net.JoinHostPort(host, strconv.Itoa(port))
			c, err := patroni.New(patroni.Options{URL: url, Username: "u", Password: hostile.Password})
			if err != nil {
				return err.Error()
			}
			text, err := what(ctx, c)
			if err != nil {
				text += "\n" + err.Error()
			}
			return text
		}
	}
	return hostile.Client(
		do(func(ctx context.Context, c *patroni.Client) (string, error) {
			h, err := c.Leader(ctx)
			var text strings.Builder
			fmt.Fprint(&text, h.State, "\n", h.Role, "\n", h.Name, "\n", h.Scope, "\n", h.Version, "\n", h.SystemID)
			for name, change := range h.PendingRestartReason {
				fmt.Fprint(&text, "\n", name, "\n", change.Old, "\n", change.New)
			}
			return text.String(), err
		}),
		do(func(ctx context.Context, c *patroni.Client) (string, error) {
			cluster, err := c.Cluster(ctx)
			var text strings.Builder
			text.WriteString(cluster.Scope)
			for _, m := range cluster.Members {
				fmt.Fprint(&text, "\n", m.Name, "\n", m.Role, "\n", m.State, "\n", m.Host, "\n", m.APIURL)
			}
			return text.String(), err
		}),
		do(func(ctx context.Context, c *patroni.Client) (string, error) {
			d, err := c.Dynamic(ctx)
			return d.TTL.String(), err
		}),
		do(func(ctx context.Context, c *patroni.Client) (string, error) { return "", c.Reload(ctx) }),
	)
}
