package maintenance

import (
	"context"
	"testing"

	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/postgres"
)

// The server of our own member is asked as the configuration says, and not at the address that Patroni has written for others.
func TestOwnServer(t *testing.T) {
	m := membertest.New(t, membertest.SharedPostgres(t))
	s := &scene{self: "m1", members: map[string]*seen{"m1": {Member: patroni.Member{Name: "m1", Host: "127.255.255.9", Port: 1}},
		"m2": {Member: patroni.Member{Name: "m2", Host: "127.255.255.9", Port: 1}}}}
	for name, answers := range map[string]bool{"m1": true, "m2": false} {
		err := s.query(t.Context(), m, name, func(ctx context.Context, conn *postgres.Conn) error {
			_, err := conn.Identity(ctx)
			return err
		})
		if (err == nil) != answers {
			t.Errorf("%s: %v", name, err)
		}
	}
}
