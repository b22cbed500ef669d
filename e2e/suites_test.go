package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// eachSuite runs a case on every suite, one after the other and beside nothing else: what it measures shares two cores with no other
// cluster. Cases of the same options use one cluster, one after the other: see start.
func eachSuite(t *testing.T, run func(t *testing.T, suite string)) {
	t.Helper()
	runOn(t, []string{"trixie", "sid"}, false, run)
}

// oneSuite is eachSuite for what does not depend on the programs' versions: it runs on one suite, and in a full run on all.
func oneSuite(t *testing.T, suite string, run func(t *testing.T, suite string)) {
	t.Helper()
	runOn(t, []string{suite}, false, run)
}

// together runs a case beside others, on every suite: for those that wait for a lease or a lock to end more than they work, and whose
// limits are seconds. Each has a cluster of its own, with little load: see startQuiet. None runs beside one of eachSuite.
func together(t *testing.T, run func(t *testing.T, suite string)) {
	t.Helper()
	t.Parallel()
	runOn(t, []string{"trixie", "sid"}, true, run)
}

// togetherOn is together for what does not depend on the programs' versions.
func togetherOn(t *testing.T, suite string, run func(t *testing.T, suite string)) {
	t.Helper()
	t.Parallel()
	runOn(t, []string{suite}, true, run)
}

// inFull is together, on every suite, for what takes minutes: it is no part of make test and runs in make e2e-full.
func inFull(t *testing.T, run func(t *testing.T, suite string)) {
	t.Helper()
	if !*full {
		t.Skip("takes minutes: run with -full")
	}
	together(t, run)
}

func runOn(t *testing.T, on []string, parallel bool, run func(t *testing.T, suite string)) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: namespaces and chroot")
	}
	if *cases != "all" && (*cases == "together") != parallel {
		t.Skipf("-cases %s", *cases)
	}
	if *full {
		on = []string{"trixie", "sid"}
	}
	on = slices.DeleteFunc(on, func(suite string) bool { return !strings.Contains(","+*suites+",", ","+suite+",") })
	if len(on) == 0 {
		t.Skipf("-suites %s", *suites)
	}
	for _, suite := range on {
		t.Run(suite, func(t *testing.T) {
			if parallel {
				t.Parallel()
			}
			run(t, suite)
		})
	}
}

// shared is the cluster that the last of the cases that run alone has left, for the next one of the same options.
var shared sharedLab

type sharedLab struct {
	options   string // what it was made from; "" where there is none
	lab       *lab.Lab
	callbacks string
	configs   map[string]map[string]string // of its poolers, as it was made
	dynamic   string                       // Patroni's dynamic configuration, as it was made
}

// close ends the cluster, if there is one.
func (s *sharedLab) close() error {
	if s.lab == nil {
		return nil
	}
	err := errors.Join(s.lab.Close(), os.RemoveAll(s.callbacks))
	*s = sharedLab{}
	return err
}

// start gives a case that runs alone a healthy cluster with pgbaton in it: the one that the case before has left, where that was made from
// the same options, else a new one. settings are lines of pgbaton.yaml beyond the addresses, such as "pause: {stop_server: off}".
func start(t *testing.T, opts lab.Options, settings ...string) *cluster {
	t.Helper()
	c := newCluster(t)
	options := fmt.Sprintf("%+v", opts)
	if opts.Patroni != nil || options != shared.options {
		if err := shared.close(); err != nil {
			t.Fatalf("lab: %v", err)
		}
	}
	if shared.lab == nil {
		made := c.make(opts, settings)
		if opts.Patroni != nil { // no two functions can be compared
			t.Cleanup(func() { c.end(made) })
			return c
		}
		shared = made
		shared.options = options
	} else {
		c.reuse(shared, settings)
	}
	t.Cleanup(func() {
		c.leavesNothing()
		if diff := cmp.Diff(shared.dynamic, c.dynamicConfig()); diff != "" {
			c.t.Errorf("Patroni's dynamic configuration differs (-before +now):\n%s", diff)
		}
		c.saveLogs()
		if t.Failed() {
			if err := shared.close(); err != nil {
				t.Errorf("lab: %v", err)
			}
		}
	})
	return c
}

// startQuiet gives a case that runs beside others a cluster of its own, with load that leaves them the machine.
func startQuiet(t *testing.T, opts lab.Options, settings ...string) *cluster {
	t.Helper()
	opts.PgbenchRate, opts.PgbenchScale = 50, 1
	c := newCluster(t)
	made := c.make(opts, settings)
	t.Cleanup(func() { c.end(made) })
	return c
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, heard: &heard{}, way: pgbatonWay}
	var cancel context.CancelFunc
	c.ctx, cancel = context.WithTimeout(context.Background(), 15*time.Minute)
	t.Cleanup(cancel)
	return c
}

// make starts a new lab, with pgbaton mounted as in the README.
func (c *cluster) make(opts lab.Options, settings []string) sharedLab {
	c.t.Helper()
	return c.makeWith(opts, func() []string { return settings })
}

// makeWith is make where the settings have addresses of the lab in them.
func (c *cluster) makeWith(opts lab.Options, settings func() []string) sharedLab {
	c.t.Helper()
	dir, err := os.MkdirTemp("", "pgbaton-e2e-callbacks-")
	c.must(err)
	c.must(os.Chmod(dir, 0o755))
	c.dir, opts.Callbacks = dir, dir
	opts.BeforeStop, opts.Callback = c.way.beforeStop, c.way.callback
	opts.Prepare = func(l *lab.Lab) error {
		c.Lab = l
		return firstError(c.install(), c.configure(settings()...))
	}
	if c.Lab, err = lab.Start(c.ctx, opts); err != nil {
		c.t.Fatalf("lab: %v", errors.Join(err, os.RemoveAll(dir)))
	}
	c.before = c.configs()
	return sharedLab{lab: c.Lab, callbacks: dir, configs: c.before, dynamic: c.dynamicConfig()}
}

// end takes a lab away that no other case uses.
func (c *cluster) end(made sharedLab) {
	c.leavesNothing()
	c.saveLogs()
	if err := made.close(); err != nil {
		c.t.Errorf("lab: %v", err)
	}
}

// reuse makes a lab as it was when it was new, except for its data and for who leads it. What is not made new here has been checked by
// leavesNothing.
func (c *cluster) reuse(s sharedLab, settings []string) {
	c.t.Helper()
	c.Lab, c.dir, c.before = s.lab, s.callbacks, s.configs
	entries, err := os.ReadDir(c.dir)
	c.must(err)
	for _, e := range entries {
		c.must(os.RemoveAll(filepath.Join(c.dir, e.Name())))
	}
	c.must(firstError(c.install(), c.configure(settings...)))
	c.Route().SetDelay(0)
	for _, m := range c.Members() {
		r, err := m.Exec(c.ctx, nil, "find", "/run/pgbaton", "-mindepth", "1", "-delete")
		c.must(err)
		if r.ExitCode != 0 {
			c.t.Fatalf("%s: %s", m.Name, r.Stderr)
		}
	}
	c.must(c.TruncateLogs())
	if now := c.Options(); now.BeforeStop != c.way.beforeStop || now.Callback != c.way.callback {
		c.use(c.way)
	}
	c.healthy()
}

// leavesNothing checks what every case promises: a healthy cluster, no pooler paused, the poolers' settings as they were, and nothing of
// pgbaton at work.
func (c *cluster) leavesNothing() {
	c.t.Helper()
	if c.t.Failed() {
		return
	}
	c.healthy()
	c.asBefore()
	c.eventually(10*time.Second, "nothing of pgbaton runs", func() error {
		for _, m := range c.Members() {
			processes, err := m.Processes()
			if err != nil {
				return err
			}
			for _, p := range processes {
				if len(p.Args) > 0 && strings.HasPrefix(p.Args[0], "/callbacks/") {
					return fmt.Errorf("%s: %s", m.Name, p.Cmdline())
				}
			}
		}
		return nil
	})
}

// dynamicConfig is GET /config, without what the lab itself writes there to make Patroni begin a loop.
func (c *cluster) dynamicConfig() string {
	c.t.Helper()
	config, err := c.DynamicConfig(c.ctx)
	c.must(err)
	return config
}
