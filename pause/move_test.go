package pause

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
)

// The keeper of the old primary moves the pooler beside it to the member that was promoted, and resumes it: who waits there goes on at the
// new primary. While the old one still leads nothing is moved.
func TestKeeperMoves(t *testing.T) {
	t.Parallel()
	primary := membertest.OwnPostgres(t)
	standby, err := single.StartStandby(t.Context(), primary)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Close)
	b := membertest.StartPooler(t, single.SuiteTrixie, primary)
	m := membertest.New(t, primary, b)
	m.Config.Postgres = primary.DSN("postgres", "postgres")
	m.Config.Poolers[0].Follow = &config.Follow{
		File:      b.ConfigPath,
		Databases: []string{"*"},
		LocalHost: primary.Addr,
		LocalPort: primary.Port,
	}
	patroni := membertest.NewPatroni(t, m, "stopping")
	leads := func(of *single.Postgres) {
		patroni.Set(func(f *membertest.Patroni) {
			f.Cluster = fmt.Sprintf(
				`{"members": [{"name": "x", "role": "leader", "state": "running", "host": %q, "port": %d}]}`,
				of.Addr,
				of.Port,
			)
		})
	}
	leads(primary)
	local, err := m.Server()
	if err != nil {
		t.Fatal(err)
	}
	here, err := member.Identify(t.Context(), local)
	if err != nil {
		t.Fatal(err)
	}
	client, err := pgconn.Connect(t.Context(), b.DSN("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close(context.Background()) }()
	serverOf := func() (string, error) {
		results, err := client.Exec(t.Context(), "select inet_server_addr()::text").ReadAll()
		if err != nil {
			return "", err
		}
		return string(results[0].Rows[0][0]), nil
	}
	before, err := serverOf()
	if err != nil {
		t.Fatal(err)
	}
	membertest.Abandoned(t, m, pgb.Guard)
	k := newKeeper(m, lease{ID: "1", Owner: pgb.Guard, Nonce: 4, Until: time.Now().Add(time.Minute), For: time.Minute, Since: time.Now(),
		Origin: origin{SystemID: here.SystemID, Timeline: here.Timeline}})
	defer k.close()
	poolers, _, errs := m.Poolers(t.Context(), nil)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	k.poolers = []*watched{{Pooler: poolers[0], listed: true}}
	ctx, cancel := context.WithCancel(t.Context())
	defer k.moving.Wait()
	defer cancel()
	k.startMoving(ctx)

	type answer struct {
		at  string
		err error
	}
	went := make(chan answer, 1)
	go func() {
		at, err := serverOf()
		went <- answer{at, err}
	}()
	membertest.Eventually(t, "a client waits", func() bool {
		state, err := poolers[0].State(t.Context())
		return err == nil && state.Waiting > 0
	})
	primary.Stop()
	select {
	case a := <-went:
		t.Fatalf("let through before anybody was promoted: %+v", a)
	default:
	}
	if err := standby.Exec(t.Context(), "select pg_promote()"); err != nil {
		t.Fatal(err)
	}
	leads(standby)
	select {
	case a := <-went:
		if a.err != nil || a.at == before {
			t.Errorf("%+v, was at %s", a, before)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nobody has moved the pooler")
	}
	membertest.Eventually(t, "the mark is taken off", func() bool {
		mark, err := poolers[0].Holder(t.Context())
		return err == nil && mark == nil
	})
}
