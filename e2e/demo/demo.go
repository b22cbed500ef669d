package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

const (
	stateDir  = "/run/pgbaton"
	runPrefix = "demo-run-"   // folders below labDir, one a run
	reportDir = "demo-report" // in the repository, unless -out names another place

	// How long clients may stand still before the demo takes the pooler for left paused.
	foreverPaused = 25 * time.Second
)

// demo is one run.
type demo struct {
	suite, out string
	screen     *screen
	leftBehind error // servers or files that would not go

	lab       *lab.Lab
	callbacks string // host folder, /callbacks in the members
}

// hookPair is what Patroni is told to call.
type hookPair struct{ name, beforeStop, callback string }

var (
	pgbatonHooks = hookPair{"pgbaton", "/callbacks/before_stop", "/callbacks/on_role_change"}
	runbookHooks = hookPair{"by the runbook", "/callbacks/runbook/before_stop", "/callbacks/runbook/on_role_change"}
)

// cluster starts a lab with pgbaton in it, in whose pgbaton.yaml settings are lines more, does something with it, and takes it away. dir is
// for files of the run.
func (d *demo) cluster(ctx context.Context, settings string, do func(repository, dir string) error) (err error) {
	m, err := look(labDir(), d.suite)
	if err != nil {
		return err
	}
	if err := m.missing(); err != nil {
		return err
	}
	repository, err := repositoryRoot()
	if err != nil {
		return err
	}
	if !m.rootMade && !m.debootstrap {
		if err := installDebootstrap(ctx, labDir(), d.screen); err != nil {
			return err
		}
	}
	root, err := makeRoot(ctx, repository, d.suite, d.screen)
	if err != nil {
		return err
	}
	d.screen.step("programs of Debian %s are in %s", d.suite, root)

	dir, err := os.MkdirTemp(labDir(), runPrefix)
	if err != nil {
		return err
	}
	defer func() {
		if removeErr := os.RemoveAll(dir); removeErr != nil {
			d.leftBehind = removeErr
			err = errors.Join(err, removeErr)
		}
	}()
	d.callbacks = filepath.Join(dir, "callbacks")
	if err := os.Mkdir(d.callbacks, 0o755); err != nil {
		return err
	}
	binary := filepath.Join(dir, "pgbaton")
	if err := build(ctx, repository, binary); err != nil {
		return err
	}
	d.screen.step("built the static binary")

	d.lab, err = lab.Start(ctx, lab.Options{
		Suite: d.suite, Root: root, Callbacks: d.callbacks, BeforeStop: pgbatonHooks.beforeStop, Callback: pgbatonHooks.callback,
		Prepare: func(l *lab.Lab) error { return d.mount(ctx, l, repository, binary, settings) },
		Logf: func(format string, args ...any) {
			// The lab counts from its own beginning.
			if _, text, found := strings.Cut(fmt.Sprintf(format, args...), " s  "); found {
				d.screen.step("lab: %s", text)
			}
		},
	})
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &problem{err.Error(), "run the demo again; if it stays so, the last words above are the server's own"}
	}
	defer func() {
		if closeErr := d.lab.Close(); closeErr != nil {
			d.leftBehind = &problem{closeErr.Error(), "run make demo-down"}
			err = errors.Join(d.leftBehind, err)
			return
		}
		d.screen.step("all servers are stopped, their files removed")
	}()

	return do(repository, dir)
}

func (d *demo) run(ctx context.Context) error {
	return d.cluster(ctx, "", func(repository, _ string) error { return d.compare(ctx, repository) })
}

// compare does the same with pgbaton and by the runbook, and leaves the report.
func (d *demo) compare(ctx context.Context, repository string) error {
	if d.out == "" {
		d.out = filepath.Join(repository, reportDir)
	}
	r := report{
		Made:  time.Now(),
		Suite: d.suite,
		Load:  "pgbench -c 4 -j 4, and 8 connections that write every 10 ms, all through PgBouncer",
	}
	var err error
	if r.Versions, err = d.versions(ctx); err != nil {
		return err
	}
	ours, err := d.way(ctx, pgbatonHooks, "switchover", "restart")
	if err != nil {
		return err
	}
	if err := d.lab.SetHooks(ctx, runbookHooks.beforeStop, runbookHooks.callback); err != nil {
		return err
	}
	d.screen.step("Patroni now calls the runbook's scripts")
	// The runbook leaves clients paused for ever after a restart (the end-to-end tests have that): only the switchover is compared.
	theirs, err := d.way(ctx, runbookHooks, "switchover")
	if err != nil {
		return err
	}
	r.Ways = []way{ours, theirs}
	if err := r.write(d.out); err != nil {
		return err
	}
	d.screen.setBottom("")
	d.screen.print(
		"\n" + r.text() + fmt.Sprintf(
			"\nReport and plot: %s\n\n",
			filepath.Join(d.out, "throughput.svg")+", .png; report.txt, report.json, timeline-*.log",
		),
	)
	if failure := r.failure(); failure != "" {
		return &problem{failure, "the time lines in " + d.out + " show when; a machine that is very busy may be the reason"}
	}
	return nil
}

// mount fills the folder that the members see as /callbacks, as the README says.
func (d *demo) mount(ctx context.Context, l *lab.Lab, repository, binary, settings string) error {
	if out, err := exec.CommandContext(ctx, binary, "install", d.callbacks).CombinedOutput(); err != nil {
		return fmt.Errorf("pgbaton install: %w\n%s", err, out)
	}
	files := map[string]string{
		"pgbaton.yaml": fmt.Sprintf(`patroni: {url: "http://${HOSTNAME}:8008"}
postgres: host=/var/run/postgresql user=postgres dbname=postgres passfile=/callbacks/pgpass
poolers:
  - dsn: postgres://pgbouncer_admin@pgbouncer:6432/pgbouncer
    password_file: /callbacks/pooler-password
state_dir: %s
`, stateDir) + settings,
		// Of the runbook's scripts.
		"env": fmt.Sprintf(
			"export RUNBOOK_POOLER='%s' PGHOST=/var/run/postgresql PGUSER=postgres PATRONICTL_CONFIG_FILE=/etc/patroni.yml\n",
			l.Pooler().AdminDSN(),
		),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(d.callbacks, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{"pooler-password": l.AdminPassword + "\n", "pgpass": "*:*:*:postgres:" +
		l.SuperuserPassword + "\n"} {
		if err := l.WriteSecret(filepath.Join(d.callbacks, name), content); err != nil {
			return err
		}
	}
	runbook := filepath.Join(d.callbacks, "runbook")
	if err := os.CopyFS(runbook, os.DirFS(filepath.Join(repository, "e2e", "runbook"))); err != nil {
		return err
	}
	for _, name := range []string{"before_stop", "on_role_change"} {
		if err := os.Chmod(filepath.Join(runbook, name), 0o755); err != nil {
			return err
		}
	}
	return os.Chmod(runbook, 0o755)
}

func (d *demo) versions(ctx context.Context) (map[string]string, error) {
	leader, err := d.lab.Leader(ctx)
	if err != nil {
		return nil, err
	}
	status, err := leader.Status(ctx)
	if err != nil {
		return nil, err
	}
	pooler, _, err := d.lab.Pooler().Admin(ctx, "SHOW VERSION")
	if err != nil || len(pooler) == 0 {
		return nil, fmt.Errorf("SHOW VERSION: %w", err)
	}
	return map[string]string{
		"Patroni":    status.Patroni.Version,
		"PostgreSQL": fmt.Sprintf("%d.%d", status.ServerVersion/10000, status.ServerVersion%10000),
		"PgBouncer":  strings.TrimPrefix(pooler[0]["version"], "PgBouncer "),
	}, nil
}

// way runs the load and does operations under it.
func (d *demo) way(ctx context.Context, hooks hookPair, names ...string) (way, error) {
	w := way{Name: hooks.name}
	d.screen.step("%s: starting pgbench and the write probe", hooks.name)
	probe, err := d.lab.StartProbe(ctx, 8, 10*time.Millisecond)
	if err != nil {
		return w, err
	}
	running := true
	stopProbe := func() (r lab.ProbeResult) {
		if running {
			running, r = false, probe.Stop()
		}
		return r
	}
	defer stopProbe()
	bench, err := d.lab.StartPgbench(ctx, d.lab.Pooler(), 4, 4)
	if err != nil {
		return w, err
	}
	unwatch := d.screen.watch(hooks.name, probe, func() int { return len(probe.Errors()) })
	defer func() { unwatch() }()

	type span struct{ asked, end time.Time }
	var spans []span
	for _, name := range names {
		o, end, err := d.operate(ctx, hooks.name, name, probe)
		if err != nil {
			return w, err
		}
		w.Operations = append(w.Operations, o)
		spans = append(spans, span{o.Asked, end})
	}
	unwatch()
	unwatch = func() {}
	result := stopProbe()
	benchCtx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	benched, err := bench.Stop(benchCtx)
	if err != nil {
		return w, fmt.Errorf("pgbench: %w", err)
	}
	w.Transactions, w.Writes = benched.Transactions, result.Acked
	w.errorsOf(result, benched)
	if err := result.VerifyWrites(ctx, d.lab); err != nil {
		w.LostWrites = err.Error()
	}

	for i := range w.Operations {
		o := &w.Operations[i]
		stall := result.StallBetween(o.Asked, spans[i].end)
		o.StallMS = stall.Length().Milliseconds()
		journal, err := journals(ctx, d.lab, o.Asked, spans[i].end)
		if err != nil {
			return w, err
		}
		events, err := d.lab.TimeLine(o.Asked, spans[i].end)
		if err != nil {
			return w, err
		}
		o.Steps = handoverSteps(o.Asked, o.From, o.To, journal, events, d.lab.Route().Moves(), stall)
		o.Zero = o.Asked
		if pause, have := o.step(stepPause); have {
			o.Zero = pause.At
		}
		until := shownUntil(*o)
		if until.After(result.Ended) {
			until = result.Ended
		}
		o.Throughput = throughput(result.Commits, o.Zero, until)
		o.log = merged(o.Zero, journal, events)
		if o.Name == "switchover" {
			if f, err := lab.SwitchoverFloor(events, o.From, o.To); err != nil {
				d.screen.step("%s: the switchover's floor is not known: %v", hooks.name, err)
			} else {
				o.Floor = &floor{
					ShutdownMS:  f.Shutdown.Milliseconds(),
					LockMS:      f.Lock.Milliseconds(),
					PromotionMS: f.Promotion.Milliseconds(),
				}
			}
		}
	}
	return w, nil
}

// operate does one handover, and returns when the cluster is whole again.
func (d *demo) operate(ctx context.Context, way, name string, probe *lab.Probe) (o operation, end time.Time, err error) {
	o.Name = name
	// What the plot shows as normal.
	if err := pass(ctx, before+500*time.Millisecond); err != nil {
		return o, end, err
	}
	leader, err := d.lab.Leader(ctx)
	if err != nil {
		return o, end, err
	}
	o.From, o.To, o.Asked = leader.Name, leader.Name, time.Now()
	switch name {
	case "switchover":
		d.screen.step("%s: switchover away from %s", way, leader.Name)
		h, err := d.lab.Switchover(ctx, "")
		if err != nil {
			return o, end, err
		}
		o.Asked, o.To = h.Began, h.To.Name
	case "restart":
		d.screen.step("%s: restart of the primary %s", way, leader.Name)
		if err := leader.RestartPostgres(ctx); err != nil {
			return o, end, err
		}
	}
	flowing, cancel := context.WithTimeout(ctx, foreverPaused)
	defer cancel()
	if err := probe.WaitFlowing(flowing, 5); err != nil {
		if ctx.Err() != nil {
			return o, end, ctx.Err()
		}
		paused, pausedErr := d.lab.Paused(ctx)
		if pausedErr != nil || len(paused) == 0 {
			return o, end, fmt.Errorf("after the %s clients do not work: %w", name, err)
		}
		o.LeftPaused = true
		d.screen.step("%s: the pooler is still paused; resuming it by hand", way)
		if _, _, err := d.lab.Pooler().Admin(ctx, "RESUME"); err != nil {
			return o, end, err
		}
		if err := probe.WaitFlowing(ctx, 5); err != nil {
			return o, end, err
		}
	}
	end = time.Now()
	d.screen.step("%s: clients write again, the primary is %s", way, o.To)
	if err := pass(ctx, after+binWidth); err != nil {
		return o, end, err
	}
	healthy, cancelHealthy := context.WithTimeout(ctx, 2*time.Minute)
	defer cancelHealthy()
	if err := d.lab.WaitHealthy(healthy); err != nil {
		return o, end, err
	}
	d.screen.step("%s: all members are healthy again", way)
	return o, end, nil
}

// pass lets clients work for a while.
func pass(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
