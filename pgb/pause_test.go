package pgb_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
	"github.com/pgbaton/pgbaton/postgres"
)

func wantNotDrained(t *testing.T, err error, active int) {
	t.Helper()
	var e *pgb.NotDrainedError
	if !errors.As(err, &e) || e.Active != active || e.Pooler == "" {
		t.Fatalf("%v, want %d server connections still in use", err, active)
	}
}

// pauseInVain calls Pause, and ends its context once the pooler has read PAUSE and only so many server connections
// are in the way.
func (r *rig) pauseInVain(t *testing.T, p *pgb.Pooler, active int) (pgb.PauseOutcome, error) {
	t.Helper()
	ctx, end := context.WithCancel(soon(t))
	defer end()
	if err := p.Open(ctx); err != nil {
		t.Fatal(err)
	}
	what, times := pauseIssued, 1
	if p.Databases != nil {
		what, times = "PAUSE '", len(p.Databases)
	}
	times += strings.Count(r.log(t), what)
	var outcome pgb.PauseOutcome
	paused := run(func() (err error) { outcome, err = p.Pause(ctx); return err })
	r.heard(t, what, times)
	look := r.pooler(t, p.Databases...)
	until(t, "the idle server connections are closed", func() bool {
		n, err := look.ServerConnections(soon(t))
		return err == nil && n == active
	})
	end()
	err := wantDone(t, "pause", paused)
	return outcome, err
}

// A context that ends must not resume: pgconn would send a cancel request, which PgBouncer takes for RESUME.
func TestPauseStandsWhenTheContextEnds(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		p := r.pooler(t)
		inTransaction, other := r.client(t, "postgres"), r.client(t, "postgres")
		other.must("select 1")
		inTransaction.must("begin; select 1")

		outcome, err := r.pauseInVain(t, p, 1)
		wantNotDrained(t, err, 1)
		if outcome.Already {
			t.Error("the first pause says that there was one")
		}
		r.wantPaused(t)
		asked := other.ask("select 1")
		until(t, "a client waits", func() bool {
			s, err := p.State(soon(t))
			return err == nil && s.Waiting == 1
		})
		// Paused twice, and still in the way.
		// Nothing is logged of this one.
		outcome, err = p.Pause(within(t, time.Second))
		wantNotDrained(t, err, 1)
		if !outcome.Already {
			t.Error("the second pause says that there was none")
		}

		inTransaction.must("commit")
		outcome, err = p.Pause(soon(t))
		if err != nil || !outcome.Already {
			t.Errorf("drained: %+v %v", outcome, err)
		}
		if n, err := p.ServerConnections(soon(t)); n != 0 || err != nil {
			t.Errorf("%d server connections, %v", n, err)
		}
		s, err := p.State(soon(t))
		if err != nil || s.PausedKnown != (r.Suite != single.SuiteHost) || s.Paused != s.PausedKnown || s.Waiting != 1 || s.Servers != 0 ||
			s.MaxWait <= 0 ||
			!s.LooksPaused() {
			t.Errorf("state of a paused pooler %+v %v", s, err)
		}
		select {
		case err := <-asked:
			t.Fatalf("the waiting query has ended: %v", err)
		default:
		}

		if was, err := p.Resume(soon(t)); err != nil || !was {
			t.Errorf("resume: %v %v", was, err)
		}
		if err := wantDone(t, "the waiting query", asked); err != nil {
			t.Errorf("the waiting query: %v", err)
		}
		r.wantNotPaused(t)
		s, err = p.State(soon(t))
		if err != nil || s.Paused || s.LooksPaused() || s.Waiting != 0 || s.Servers == 0 || s.LoginRetry != 15*time.Second ||
			s.Mark != nil ||
			len(s.PausedDBs) != 0 {
			t.Errorf("state of a resumed pooler %+v %v", s, err)
		}
		if was, err := p.Resume(soon(t)); err != nil || was {
			t.Errorf("resume without a pause: %v %v", was, err)
		}
	})
}

func TestPauseDrains(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		p, look := r.pooler(t), r.pooler(t)
		c := r.client(t, "postgres")
		c.must("select 1")
		if outcome, err := p.Pause(soon(t)); err != nil || outcome.Already {
			t.Fatalf("idle pooler: %+v %v", outcome, err)
		}
		if n, err := look.ServerConnections(soon(t)); n != 0 || err != nil {
			t.Fatalf("%d server connections, %v", n, err)
		}
		if was, err := p.Resume(soon(t)); err != nil || !was {
			t.Fatal(was, err)
		}

		// Drained as soon as the transaction ends.
		c.must("begin; select 1")
		paused := run(func() error { _, err := p.Pause(soon(t)); return err })
		r.heard(t, pauseIssued, 2)
		select {
		case err := <-paused:
			t.Fatalf("drained with a transaction open: %v", err)
		default:
		}
		c.must("commit")
		start := time.Now()
		if err := wantDone(t, "pause", paused); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("drained %v after the commit", took)
		}
		// Closing the pooler's connections ends no pause.
		p.Close()
		r.wantPaused(t)
	})
}

// After a WAIT_CLOSE, PAUSE answers at once for the rest of the process' life.
func TestPauseAfterWaitClose(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		p := r.pooler(t)
		c := r.client(t, "postgres")
		// One that really waits: RECONNECT while the connection is in use.
		c.must("begin; select 1")
		r.mustPsql(t, "RECONNECT")
		waiting := run(func() error { _, err := r.psql(t, "WAIT_CLOSE"); return err })
		r.heard(t, "WAIT_CLOSE command issued", 1)
		c.must("commit")
		if err := wantDone(t, "WAIT_CLOSE", waiting); err != nil {
			t.Fatal(err)
		}

		c.must("begin; select 1")
		raw := r.console(t)
		result, err := raw.Exec(within(t, 300*time.Millisecond), "PAUSE")
		if err == nil {
			t.Logf("PAUSE with a transaction open answered at once: %s", result.Tag)
		} else {
			t.Logf("PAUSE with a transaction open waited: %v", err)
		}
		r.mustPsql(t, "RESUME")

		_, err = r.pauseInVain(t, p, 1)
		wantNotDrained(t, err, 1)
		if _, err := p.Resume(soon(t)); err != nil {
			t.Fatal(err)
		}
		paused := run(func() error { _, err := p.Pause(soon(t)); return err })
		r.heard(t, pauseIssued, 3)
		c.must("commit")
		if err := wantDone(t, "pause", paused); err != nil {
			t.Error(err)
		}
		if n, err := r.pooler(t).ServerConnections(soon(t)); n != 0 || err != nil {
			t.Errorf("drained, but %d server connections (%v)", n, err)
		}
	})
}

func TestResumedByAnotherWhilePauseWaits(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		p := r.pooler(t)
		c := r.client(t, "postgres")
		c.must("begin; select 1")
		ctx, end := context.WithCancel(soon(t))
		defer end()
		paused := run(func() error { _, err := p.Pause(ctx); return err })
		r.heard(t, pauseIssued, 1)
		r.mustPsql(t, "RESUME")
		c.must("commit")
		end()
		err := wantDone(t, "pause", paused)
		if err == nil {
			t.Error("Pause believes in a pause that another has ended")
		}
		t.Logf("Pause says: %v", err)
		r.wantNotPaused(t)
		if was, err := p.Resume(soon(t)); was || err != nil {
			t.Errorf("resume: %v %v", was, err)
		}
	})
}

// Resume while the own PAUSE waits for a transaction.
func TestResumeEndsAPauseUnderWay(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		p := r.pooler(t)
		c, other := r.client(t, "postgres"), r.client(t, "postgres")
		c.must("begin; select 1")
		if err := p.SendPause(soon(t)); err != nil {
			t.Fatal(err)
		}
		r.heard(t, pauseIssued, 1)
		asked := other.ask("select 1")
		if was, err := p.Resume(soon(t)); !was || err != nil {
			t.Fatalf("resume: %v %v", was, err)
		}
		if err := wantDone(t, "the waiting query", asked); err != nil {
			t.Error(err)
		}
		r.wantNotPaused(t)
		c.must("commit")
	})
}

// A PAUSE that the pooler has not read when RESUME comes must not stand at the end, in whichever order they are read.
func TestResumeAgainstAnUnreadPause(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		c := r.client(t, "postgres")
		for round := range 20 {
			c.must("begin; select 1") // keeps a PAUSE from being answered
			p := r.pooler(t)
			if err := p.Open(soon(t)); err != nil {
				t.Fatal(err)
			}
			hold := r.console(t)
			if err := r.Freeze(); err != nil {
				t.Fatal(err)
			}
			resume := func() <-chan error {
				return run(func() error { _, err := p.Resume(soon(t)); return err })
			}
			pause := func(c *pgb.Console) {
				if err := c.Send(soon(t), "PAUSE"); err != nil {
					t.Fatal(err)
				}
			}
			var resumed <-chan error
			switch round % 2 {
			case 0:
				if err := p.SendOn(soon(t), hold); err != nil { // dropped by Resume
					t.Fatal(err)
				}
				until(t, "PAUSE is in the queue", func() bool { return r.queued(t) == 1 })
				resumed = resume()
				until(t, "RESUME is in the queue", func() bool { return r.queued(t) == 2 })
			case 1:
				// As when the packet with PAUSE was lost, and came again later.
				resumed = resume()
				until(t, "RESUME is in the queue", func() bool { return r.queued(t) == 1 })
				pause(hold)
				until(t, "PAUSE is in the queue", func() bool { return r.queued(t) == 2 })
				hold.Close() // nobody waits for the answer
			}
			if err := r.Thaw(); err != nil {
				t.Fatal(err)
			}
			if err := wantDone(t, "resume", resumed); err != nil {
				t.Fatal(err)
			}
			r.heard(t, pauseIssued, round+1)
			if _, err := r.psql(t, "RESUME"); !errors.Is(err, pgb.ErrNotPaused) {
				t.Fatalf("round %d: Resume has returned and the pooler was paused: RESUME says %v", round, err)
			}
			c.must("commit")
			p.Close()
		}
	})
}

// queued counts the pooler's TCP connections on which something waits to be read.
func (r *rig) queued(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	a := netip.MustParseAddr(r.Addr).As4()
	local := fmt.Sprintf("%02X%02X%02X%02X:%04X", a[3], a[2], a[1], a[0], r.Port)
	count := 0
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		const listen = "0A"
		if len(f) < 5 || f[1] != local || f[3] == listen {
			continue
		}
		_, rx, _ := strings.Cut(f[4], ":")
		// A connection that was closed counts its FIN as one byte.
		if n, _ := strconv.ParseUint(rx, 16, 32); n > 1 {
			count++
		}
	}
	return count
}

// listed has a client of a database of a "*" line, and returns when the pooler lists it. An entry that is looked for while its first
// client still logs in may be taken for idle, and is then not listed although it is in use, until the next login.
func (r *rig) listed(t *testing.T, name string) *client {
	t.Helper()
	var c *client
	until(t, name+" is listed", func() bool {
		c = r.client(t, name)
		c.must("select 1")
		result := r.mustPsql(t, "SHOW DATABASES")
		for row := range result.Rows {
			if result.Get(row, "name") == name {
				return true
			}
		}
		return false
	})
	return c
}

// Names that cannot stand in PgBouncer's file get in by a "*" line.
var oddNames = []string{"UPPER", "my db", `we"ird`, "semi;colon'"}

func TestPauseOfSingleDatabases(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{Databases: "* = {backend}"}, func(t *testing.T, r *rig) {
		all := oddNames
		for _, name := range append([]string{"plain"}, all...) {
			r.listed(t, name)
		}
		p := r.pooler(t, all...)
		listed, err := p.ShowDatabases(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range append([]string{"plain"}, all...) {
			i := slices.IndexFunc(listed, func(d pgbini.Database) bool { return d.Name == name })
			if i < 0 {
				t.Fatalf("%q is not among %+v", name, listed)
			}
			if d := listed[i]; d.Target != "postgres" || d.Host != r.pg.Addr || d.Port != r.pg.Port || d.Paused || d.Disabled ||
				d.PoolSize != 20 {
				t.Errorf("%+v", d)
			}
		}
		if slices.ContainsFunc(listed, func(d pgbini.Database) bool { return d.Name == "pgbouncer" }) {
			t.Error("the console is listed as a database")
		}

		plain, busy := r.client(t, "plain"), r.client(t, "my db")
		plain.must("begin; select 1") // nobody waits for this one
		busy.must("begin; select 1")
		// Those that are idle count, too, and the ones of "plain" do not.
		if n, err := p.ServerConnections(soon(t)); n < len(all) || err != nil {
			t.Errorf("%d server connections, %v", n, err)
		}
		_, err = r.pauseInVain(t, p, 1)
		wantNotDrained(t, err, 1)
		busy.must("commit")
		if outcome, err := p.Pause(soon(t)); err != nil {
			t.Fatalf("%+v %v", outcome, err)
		}
		s, err := p.State(soon(t))
		slices.Sort(s.PausedDBs)
		want := slices.Sorted(slices.Values(all))
		if err != nil || !s.Paused || !s.PausedKnown || !slices.Equal(s.PausedDBs, want) {
			t.Errorf("%+v %v", s, err)
		}
		plain.must("select 2")
		plain.must("commit")
		asked := r.ask(t, "UPPER")
		until(t, "a client waits", func() bool { s, err := p.State(soon(t)); return err == nil && s.Waiting == 1 })
		r.wantNotPaused(t) // a RESUME of all is not for these
		if s, err := p.State(soon(t)); err != nil || !s.Paused {
			t.Errorf("after a global RESUME: %+v %v", s, err)
		}

		if was, err := p.Resume(soon(t)); !was || err != nil {
			t.Errorf("resume: %v %v", was, err)
		}
		if err := wantDone(t, "the waiting query", asked); err != nil {
			t.Error(err)
		}
		if s, err := p.State(soon(t)); err != nil || s.Paused || len(s.PausedDBs) != 0 {
			t.Errorf("resumed: %+v %v", s, err)
		}
		if was, err := p.Resume(soon(t)); was || err != nil {
			t.Errorf("resume without a pause: %v %v", was, err)
		}

		// Whoever did it.
		everything := r.pooler(t)
		if _, err := p.Pause(soon(t)); err != nil {
			t.Fatal(err)
		}
		if _, err := everything.Pause(soon(t)); err != nil {
			t.Fatal(err)
		}
		r.wantPaused(t)
		if was, err := p.ResumeEverything(soon(t)); !was || err != nil {
			t.Errorf("resume of everything: %v %v", was, err)
		}
		r.wantNotPaused(t)
		if s, err := p.State(soon(t)); err != nil || len(s.PausedDBs) != 0 {
			t.Errorf("resumed: %+v %v", s, err)
		}
		if !slices.Equal(p.Databases, all) {
			t.Errorf("Databases are now %v", p.Databases)
		}
		if was, err := p.ResumeEverything(soon(t)); was || err != nil {
			t.Errorf("resume of everything without a pause: %v %v", was, err)
		}
		for _, name := range all {
			r.client(t, name).must("select 1")
		}
	})
}

// ask starts a query on a connection that it makes itself, since a login may wait, too.
func (r *rig) ask(t *testing.T, database string) <-chan error {
	t.Helper()
	c := r.client(t, database)
	return c.ask("select 1")
}

// A database that the pooler does not know keeps none of the others paused.
func TestResumeWithADatabaseThatIsNotThere(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{Databases: "plain = {backend}\nUPPER = {backend}"}, func(t *testing.T, r *rig) {
		if _, err := r.pooler(t, "plain", "UPPER").Pause(soon(t)); err != nil {
			t.Fatal(err)
		}
		p := r.pooler(t, "plain", "nosuch", "UPPER")
		was, err := p.Resume(soon(t))
		t.Logf("Resume says %v %v", was, err)
		if s, err := p.State(soon(t)); err != nil || len(s.PausedDBs) != 0 {
			t.Errorf("%+v %v", s, err)
		}
		if !was || err != nil {
			t.Errorf("resume: %v %v", was, err)
		}
		var server *pgb.ServerError
		if _, err := p.Pause(soon(t)); !errors.As(err, &server) {
			t.Errorf("pause: %v", err)
		}
	})
}

// An entry made from a "*" line is forgotten when the pooler restarts.
func TestResumeAfterARestartWithAStarEntry(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		p := r.pooler(t, "postgres")
		if _, err := p.Pause(soon(t)); err != nil {
			t.Fatal(err)
		}
		if s, err := p.State(soon(t)); err != nil || !s.Paused && s.PausedKnown { // one that nobody uses is not listed for long
			t.Fatalf("%+v %v", s, err)
		}
		r.Kill()
		if err := r.Start(soon(t)); err != nil {
			t.Fatal(err)
		}
		if was, err := p.Resume(soon(t)); was || err != nil {
			t.Errorf("resume: %v %v", was, err)
		}
		r.client(t, "postgres").must("select 1")
	})
}

func TestKilledPoolerEndsPause(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		p := r.pooler(t)
		c := r.client(t, "postgres")
		c.must("begin; select 1")
		ctx := within(t, time.Minute) // not the reason why it ends
		paused := run(func() error { _, err := p.Pause(ctx); return err })
		r.heard(t, pauseIssued, 1)
		r.Kill()
		err := wantDone(t, "pause", paused)
		var console *pgb.ConsoleError
		if !errors.As(err, &console) || ctx.Err() != nil {
			t.Errorf("%v", err)
		}
	})
}

func TestServerDiesDuringPause(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		p := r.pooler(t)
		c := r.client(t, "postgres")
		pid := c.must("begin; select pg_backend_pid()")
		paused := run(func() error { _, err := p.Pause(soon(t)); return err })
		r.heard(t, pauseIssued, 1)
		if err := r.pg.Exec(soon(t), "select pg_terminate_backend("+pid+")"); err != nil {
			t.Fatal(err)
		}
		if err := wantDone(t, "pause", paused); err != nil {
			t.Error(err)
		}
		r.wantPaused(t)
	})
}

func TestReconnectReplacesServerConnections(t *testing.T) {
	for _, databases := range [][]string{nil, {"postgres"}} {
		t.Run(fmt.Sprint(databases), func(t *testing.T) {
			eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
				p := r.pooler(t, databases...)
				c := r.client(t, "postgres")
				before := c.must("select pg_backend_pid()")
				if again := c.must("select pg_backend_pid()"); again != before {
					t.Fatalf("the server connection is not kept: %s, %s", before, again)
				}
				if err := p.Reconnect(soon(t)); err != nil {
					t.Fatal(err)
				}
				until(t, "another backend", func() bool { return c.must("select pg_backend_pid()") != before })
			})
		})
	}
}

// The ids of backends are the same in SHOW SERVERS, for a client and in pg_stat_activity.
func TestServersAreTheBackends(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		p := r.pooler(t)
		want := map[int32]bool{}
		for range 3 {
			pid, err := strconv.Atoi(r.client(t, "postgres").must("begin; select pg_backend_pid()"))
			if err != nil {
				t.Fatal(err)
			}
			want[int32(pid)] = true
		}
		server, err := postgres.Open(r.pg.SocketDSN("postgres", "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := server.Connect(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		backends, err := conn.ClientBackends(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		servers, err := p.Servers(soon(t))
		if err != nil || len(servers) != len(want) {
			t.Fatalf("%+v %v", servers, err)
		}
		for _, s := range servers {
			if _, listed := backends[s.RemotePID]; !want[s.RemotePID] || !listed || s.Database != "postgres" || s.State != "active" {
				t.Errorf("%+v, backends of the clients %v", s, want)
			}
		}
		if other, err := r.pooler(t, "another").Servers(soon(t)); err != nil || len(other) != 0 {
			t.Errorf("%+v %v", other, err)
		}
	})
}

// What PgBouncer logs when it has read a PAUSE of everything.
const pauseIssued = "PAUSE command issued"

// PAUSE of a single database says nothing of a pause that stands already. SHOW DATABASES does, before.
func TestSecondPauseOfADatabase(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{Databases: "plain = {backend}\nUPPER = {backend}"}, func(t *testing.T, r *rig) {
		p := r.pooler(t, "plain", "UPPER")
		if s, err := p.State(soon(t)); err != nil || !s.PausedKnown || s.Paused {
			t.Errorf("%+v %v", s, err)
		}
		r.mustPsql(t, `PAUSE "UPPER"`)
		if s, err := p.State(soon(t)); err != nil || !s.PausedKnown || !s.Paused || !slices.Equal(s.PausedDBs, []string{"UPPER"}) {
			t.Errorf("one of two is paused: %+v %v", s, err)
		}
		if outcome, err := p.Pause(soon(t)); err != nil || outcome.Already {
			t.Errorf("%+v %v", outcome, err)
		}
	})
}

// A login to the server that is under way is not cut off: whoever asks right after RESUME would be disconnected for it.
func TestPauseDuringALogin(t *testing.T) {
	const database = "slow_login"
	pg := theBackend(t)
	for _, sql := range []string{"drop database if exists " + database + " with (force)", "create database " + database} {
		if err := pg.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := pgconn.Connect(t.Context(), pg.SocketDSN("postgres", database))
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(t.Context(), `create function slow() returns event_trigger language plpgsql as $$ begin perform pg_sleep(0.03); end $$;
		create event trigger slow on login execute function slow(); alter event trigger slow enable always`).
		ReadAll()
	_ = conn.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		p := r.pooler(t)
		asks, fresh := r.client(t, database), r.client(t, database)
		for range 5 {
			if err := p.Reconnect(soon(t)); err != nil {
				t.Fatal(err)
			}
			asked := asks.ask("select 1")
			until(t, "a login is under way", func() bool {
				pools, err := r.psql(t, "SHOW POOLS")
				if err != nil {
					return false
				}
				for row := range pools.Rows {
					if pools.Get(row, "database") == database && pools.Int(row, "sv_login") > 0 {
						return true
					}
				}
				return false
			})
			if _, err := p.Pause(soon(t)); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Resume(soon(t)); err != nil {
				t.Fatal(err)
			}
			if _, err := fresh.query("select 1"); err != nil {
				t.Fatalf("right after RESUME: %v", err)
			}
			if err := wantDone(t, "the query", asked); err != nil {
				t.Fatal(err)
			}
		}
	})
}
