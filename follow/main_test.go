package follow_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/follow"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

func TestMain(m *testing.M) { membertest.Main(m, map[string]membertest.Command{"_move": moveOn}) }

// node is a member with a pooler beside it whose entries stand in a file of their own, as Pigsty has it.
type node struct {
	*member.Member
	pg     *single.Postgres
	pooler *single.PgBouncer
	file   string
}

func newNode(t *testing.T, suite string, pg *single.Postgres) *node {
	t.Helper()
	n := &node{pg: pg, pooler: membertest.StartPooler(t, suite, pg)}
	n.file = filepath.Join(n.pooler.Dir, "databases.ini")
	n.write(t, n.file, fmt.Sprintf("; ours\npostgres = host=%[1]s port=%[2]d pool_size=7\n* = host=%[1]s port=%[2]d\n"+
		"postgres_ro = host=%[1]s port=%[2]d dbname=postgres\n", pg.Addr, pg.Port))
	membertest.Databases(t, n.pooler, "%include "+n.file+"\n")
	n.Member = membertest.New(t, pg, n.pooler)
	n.Config.Poolers[0].Follow = &config.Follow{File: n.file, Databases: []string{"postgres", "*"}, LocalHost: pg.Addr, LocalPort: pg.Port,
		Back: config.BackIdle}
	return n
}

func (n *node) write(t *testing.T, path, content string) {
	t.Helper()
	owner, err := os.Stat(n.pooler.ConfigPath)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
	uid, gid := membertest.Owner(owner)
	if err := os.Chown(path, uid, gid); err != nil {
		t.Fatal(err)
	}
}

func (n *node) text(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(n.file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// mover is that of the node's pooler.
func (n *node) mover(t *testing.T) *follow.Mover {
	t.Helper()
	return n.moverBy(t, follow.New)
}

func (n *node) moverBy(t *testing.T, make func(*member.Member, *pgb.Pooler) *follow.Mover) *follow.Mover {
	t.Helper()
	poolers, _, errs := n.Poolers(t.Context(), nil)
	if len(errs) > 0 || len(poolers) != 1 {
		t.Fatal(errs, len(poolers))
	}
	v := make(n.Member, poolers[0])
	t.Cleanup(func() {
		v.Close()
		member.CloseAll(poolers)
	})
	return v
}

// leads is where the pooler says that its databases lead.
func leads(t *testing.T, p *pgb.Pooler) map[string]pgbini.Address {
	t.Helper()
	databases, err := p.ShowDatabases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	to := map[string]pgbini.Address{}
	for _, d := range databases {
		to[d.Name] = pgbini.Address{Host: d.Host, Port: d.Port}
	}
	return to
}

// connect is a client of a pooler.
func connect(t *testing.T, dsn string) *pgconn.PgConn {
	t.Helper()
	c, err := pgconn.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// server is the address of the server that a client is let through to, and what went wrong.
func server(t *testing.T, c *pgconn.PgConn) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	results, err := c.Exec(ctx, "select inet_server_addr()::text").ReadAll()
	if err != nil {
		t.Error(err)
		return err.Error()
	}
	return string(results[0].Rows[0][0])
}
