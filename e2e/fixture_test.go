// Package e2e_test runs pgbaton on real clusters: Patroni, PostgreSQL, PgBouncer, etcd and HAProxy as Debian ships them.
package e2e_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

var (
	full     = flag.Bool("full", false, "as many rounds as the table in the documentation claims; without, fewer")
	suites   = flag.String("suites", "trixie,sid", "comma-separated suites of programs")
	cases    = flag.String("cases", "all", "all, alone (those that measure) or together (those that wait)")
	keepLogs = flag.String(
		"logs",
		"",
		"folder to keep the logs of every case in; without, those of failed ones are in the temporary folder",
	)
)

// rounds is how often a case is repeated: many in a full run.
func rounds(short, long int) int {
	if *full {
		return long
	}
	return short
}

// binary builds pgbaton once for a test run.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "pgbaton-e2e-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "pgbaton")
	build := exec.Command("go", "build", "-trimpath", "-o", path, "github.com/pgbaton/pgbaton/cmd/pgbaton")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if err := shared.close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	if path, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// cluster is a lab with pgbaton mounted as in the README.
type cluster struct {
	*lab.Lab
	t      *testing.T
	ctx    context.Context
	dir    string                       // /callbacks
	before map[string]map[string]string // SHOW CONFIG of each pooler, as the lab was made
	way    way                          // whose hooks Patroni runs
	heard  *heard                       // of pgbaton serve
	logins []time.Duration              // that psql took, see limit
}

// way is which hooks a cluster has.
type way struct{ name, beforeStop, callback string }

var (
	pgbatonWay = way{"pgbaton", "/callbacks/before_stop", "/callbacks/on_role_change"}
	runbookWay = way{"runbook", "/callbacks/runbook/before_stop", "/callbacks/runbook/on_role_change"}
	noHooks    = way{"no hooks", "", ""}
)

// install does what the init container does, and puts the runbook's scripts beside it.
func (c *cluster) install() error {
	if err := os.Chmod(c.dir, 0o755); err != nil {
		return err
	}
	path, err := binary()
	if err != nil {
		return err
	}
	if out, err := exec.Command(path, "install", c.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("pgbaton install: %w\n%s", err, out)
	}
	if err := os.MkdirAll(filepath.Join(c.dir, "runbook"), 0o755); err != nil {
		return err
	}
	for _, name := range []string{"before_stop", "on_role_change"} {
		script, err := os.ReadFile(filepath.Join("runbook", name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(c.dir, "runbook", name), script, 0o755); err != nil {
			return err
		}
	}
	return c.write(
		"env",
		fmt.Sprintf(
			"export RUNBOOK_POOLER='%s' PGHOST=/var/run/postgresql PGUSER=postgres PATRONICTL_CONFIG_FILE=/etc/patroni.yml\n",
			c.Pooler().AdminDSN(),
		),
	)
}

// write makes a file of the mounted folder that the servers' user may read; what holds passwords, nobody else.
func (c *cluster) write(name, content string) error {
	if name == "pgpass" || strings.Contains(name, "password") {
		return c.WriteSecret(filepath.Join(c.dir, name), content)
	}
	return os.WriteFile(filepath.Join(c.dir, name), []byte(content), 0o644)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) use(w way) {
	c.t.Helper()
	c.way = w
	c.must(c.SetHooks(c.ctx, w.beforeStop, w.callback))
}

// configs is SHOW CONFIG of every pooler.
func (c *cluster) configs() map[string]map[string]string {
	c.t.Helper()
	all, err := c.PoolerConfigs(c.ctx)
	c.must(err)
	return all
}

// load is what clients do during every case: pgbench and the write probe; and where poolers stand on the members, clients that come anew all
// the time.
type load struct {
	c      *cluster
	probe  *lab.Probe
	comers *lab.Probe // or nil
	bench  []*lab.Pgbench
}

func (c *cluster) load() *load {
	c.t.Helper()
	l := &load{c: c}
	var err error
	interval := 10 * time.Millisecond
	if c.Options().PgbenchRate > 0 {
		interval = 50 * time.Millisecond
	}
	l.probe, err = c.StartProbe(c.ctx, 8, interval)
	c.must(err)
	poolers := c.Poolers()
	if c.Options().Beside { // all have the same address for clients
		poolers = poolers[:1]
		l.comers, err = c.StartNewcomers(c.ctx, 2, 100*time.Millisecond)
		c.must(err)
	}
	for _, p := range poolers {
		b, err := c.StartPgbench(c.ctx, p, 4, 4)
		c.must(err)
		l.bench = append(l.bench, b)
	}
	l.flowing(20)
	return l
}

// flowing waits until every connection has committed so many times more. Longer than a failover and a login retry it never takes.
func (l *load) flowing(n int) {
	l.c.t.Helper()
	ctx, cancel := context.WithTimeout(l.c.ctx, 90*time.Second)
	defer cancel()
	l.c.must(l.probe.WaitFlowing(ctx, n))
	if l.comers != nil {
		l.c.must(l.comers.WaitFlowing(ctx, 2))
	}
}

// seen is what the clients saw.
type seen struct {
	lab.ProbeResult
	comers  lab.ProbeResult // zero where none came
	aborted int             // pgbench's clients that gave up
	bench   []string        // pgbench's errors
}

// stop ends the load and checks that no acknowledged write is lost.
func (l *load) stop() seen {
	l.c.t.Helper()
	l.flowing(20)
	result := l.end()
	l.c.must(result.VerifyWrites(l.c.ctx, l.c.Lab))
	if l.comers != nil {
		l.c.must(result.comers.VerifyWrites(l.c.ctx, l.c.Lab))
	}
	return result
}

// end ends it without that check, for what is done to a cluster that loses writes with or without us.
func (l *load) end() seen {
	l.c.t.Helper()
	result := seen{ProbeResult: l.probe.Stop()}
	if l.comers != nil {
		result.comers = l.comers.Stop()
	}
	for _, b := range l.bench {
		r, err := b.Stop(l.c.ctx)
		l.c.must(err)
		result.aborted += r.Aborted
		for _, line := range r.Errors {
			// PgBouncer 1.26 tells a client that has waited for 5 s that it waits (query_wait_notify). That is no error.
			if !strings.Contains(line, "NOTICE:") {
				result.bench = append(result.bench, line)
			}
		}
	}
	return result
}

// noErrors fails the test where a client has seen one.
func (c *cluster) noErrors(r seen) {
	c.t.Helper()
	if len(r.Errors) > 0 {
		c.t.Errorf("clients saw %d errors: %v", len(r.Errors), r.ErrorTexts())
	}
	if len(r.comers.Errors) > 0 {
		c.t.Errorf("%d of those that came anew saw an error, %d did not: %v", len(r.comers.Errors), r.comers.Acked, r.comers.ErrorTexts())
	}
	if r.aborted > 0 || len(r.bench) > 0 {
		c.t.Errorf("pgbench: %d clients aborted: %v", r.aborted, r.bench)
	}
}

// asBefore waits until no pooler is paused and every setting is as it was: what every case ends with.
func (c *cluster) asBefore() {
	c.t.Helper()
	c.eventually(10*time.Second, "no pooler is paused and SHOW CONFIG is as before", func() error {
		paused, err := c.Paused(c.ctx)
		if err != nil {
			return err
		}
		if len(paused) > 0 {
			return fmt.Errorf("paused: %v", paused)
		}
		now, err := c.PoolerConfigs(c.ctx)
		if err != nil {
			return err
		}
		if diff := cmp.Diff(c.before, now); diff != "" {
			return fmt.Errorf("SHOW CONFIG differs (-before +now):\n%s", diff)
		}
		return nil
	})
}

// watchPaused looks at the poolers every few milliseconds until the returned function is called, which says how long one was paused.
func (c *cluster) watchPaused() (longest func() time.Duration) {
	ctx, cancel := context.WithCancel(c.ctx)
	done := make(chan struct{})
	since, most := map[string]time.Time{}, time.Duration(0)
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			now := time.Now()
			names, err := c.Paused(ctx)
			if err == nil {
				paused := map[string]bool{}
				for _, name := range names {
					paused[name] = true
					if since[name].IsZero() {
						since[name] = now
					}
					most = max(most, now.Sub(since[name]))
				}
				maps.DeleteFunc(since, func(name string, _ time.Time) bool { return !paused[name] })
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return func() time.Duration {
		cancel()
		<-done
		return most
	}
}

func (c *cluster) eventually(limit time.Duration, what string, check func() error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, limit)
	defer cancel()
	c.must(lab.Until(ctx, 50*time.Millisecond, what, func(context.Context) error { return check() }))
}

// healthy waits until the whole cluster is, so that the next switchover has candidates.
func (c *cluster) healthy() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, 2*time.Minute)
	defer cancel()
	c.must(c.WaitHealthy(ctx))
}

func (c *cluster) leader() *lab.Member {
	c.t.Helper()
	m, err := c.Leader(c.ctx)
	c.must(err)
	return m
}

// switchover moves the leader to whom Patroni chooses.
func (c *cluster) switchover() lab.Handover {
	c.t.Helper()
	h, err := c.Switchover(c.ctx, "")
	c.must(err)
	return h
}

// saveLogs keeps the logs of a failed case, and with -logs of each.
func (c *cluster) saveLogs() {
	if !c.t.Failed() && *keepLogs == "" {
		return
	}
	dir := *keepLogs
	if dir == "" {
		dir = os.TempDir()
	}
	dir = filepath.Join(dir, strings.NewReplacer("/", "_", " ", "_").Replace(c.t.Name()))
	// Those of a run before are in the way.
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return
	}
	if err := c.SaveLogs(dir); err == nil {
		c.t.Logf("logs are in %s", dir)
	}
}
