package lab_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the lab makes namespaces and mounts: run as root")
	}
}

// startLab starts a lab and checks, at the end of the test, that it left nothing.
func startLab(ctx context.Context, t *testing.T, opts lab.Options) *lab.Lab {
	t.Helper()
	begin := time.Now()
	opts.Logf = t.Logf
	l, err := lab.Start(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("healthy after %.1f s", time.Since(begin).Seconds())
	t.Cleanup(func() {
		var pids []int
		for _, m := range l.Members() {
			processes, err := m.Processes()
			if err != nil {
				t.Error(err)
			}
			for _, p := range processes {
				pids = append(pids, p.PID)
			}
		}
		if t.Failed() {
			dir := filepath.Join(os.TempDir(), "pgbaton-lab-logs", strconv.Itoa(os.Getpid()), t.Name())
			t.Logf("logs: %s %v", dir, l.SaveLogs(dir))
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("process %d is still there", pid)
			}
		}
		mounts, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			t.Error(err)
		}
		dir := filepath.Dir(filepath.Dir(l.Members()[0].DataDir()))
		if strings.Contains(string(mounts), " "+dir+" ") {
			t.Errorf("%s is still mounted", dir)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is still there (%v)", dir, err)
		}
	})
	return l
}

func TestLab(t *testing.T) {
	needRoot(t)
	for _, suite := range []string{"trixie", "sid"} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
			defer cancel()
			scripts, err := filepath.Abs("../runbook")
			if err != nil {
				t.Fatal(err)
			}
			l := startLab(ctx, t, lab.Options{Suite: suite, Callbacks: scripts,
				PgBouncer: map[string]string{"server_login_retry": "1"}}.Quick())
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			m1 := l.Member("m1")

			t.Run("inside", func(t *testing.T) {
				r, err := m1.Exec(
					ctx,
					[]string{"WORD=x y"},
					"sh",
					"-c",
					`echo "$(id -un) $(hostname) $WORD"; getent ahostsv4 pgbouncer | grep -c STREAM; echo err >&2; exit 3`,
				)
				if err != nil {
					t.Fatal(err)
				}
				if want := "postgres m1 x y\n1\n"; r.Stdout != want || r.Stderr != "err\n" || r.ExitCode != 3 {
					t.Errorf("got %q, %q, exit code %d", r.Stdout, r.Stderr, r.ExitCode)
				}
				// A detached child must not keep Exec waiting, and can be found.
				if r, err = m1.Exec(ctx, nil, "sh", "-c", "setsid sleep 1234 &"); err != nil || r.Took > 5*time.Second {
					t.Errorf("%+v %v", r, err)
				}
				// Between one program and the next a process has no command line for a moment.
				deadline := time.After(5 * time.Second)
				p, ok := m1.FindProcess("sleep 1234")
				for !ok {
					select {
					case <-deadline:
						t.Fatal("the detached child is not listed")
					case <-time.After(10 * time.Millisecond):
						p, ok = m1.FindProcess("sleep 1234")
					}
				}
				must(p.Kill(syscall.SIGKILL))
			})

			// Without hooks: clients get errors, nothing acknowledged is lost.
			before, err := l.PoolerConfigs(ctx)
			must(err)
			bench, err := l.StartPgbench(ctx, l.Pooler(), 4, 4)
			must(err)
			probe, err := l.StartProbe(ctx, 8, 10*time.Millisecond)
			must(err)
			h, err := l.Switchover(ctx, "m2")
			must(err)
			must(probe.WaitFlowing(ctx, 5))
			result := probe.Stop()
			t.Logf("no hooks: writable after %.2f s; %d commits, %d errors, longest stall %v; Patroni: %d %s",
				h.Took().Seconds(), result.Acked, len(result.Errors), result.LongestStall, h.Status, h.Answer)
			if len(result.Errors) == 0 {
				t.Error("a switchover without hooks gave no client an error: the probe does not see them")
			}
			must(result.VerifyWrites(ctx, l))
			benched, err := bench.Stop(ctx)
			must(err)
			if benched.Aborted == 0 {
				t.Errorf("pgbench saw nothing of a switchover without hooks: %s", benched.Output)
			}
			must(l.WaitHealthy(ctx))

			// With the runbook's scripts: none.
			must(l.SetHooks(ctx, "/callbacks/before_stop", "/callbacks/on_role_change"))
			probe, err = l.StartProbe(ctx, 8, 10*time.Millisecond)
			must(err)
			_, err = l.Switchover(ctx, "m3")
			must(err)
			must(probe.WaitFlowing(ctx, 5))
			result = probe.Stop()
			t.Logf(
				"runbook: %d commits, %d errors %v, longest stall %v",
				result.Acked,
				len(result.Errors),
				result.ErrorTexts(),
				result.LongestStall,
			)
			must(result.VerifyWrites(ctx, l))
			must(l.SetHooks(ctx, "", ""))
			must(l.WaitHealthy(ctx))
			for _, p := range l.Poolers() {
				p.Admin(ctx, "RESUME")
			}
			if paused, err := l.Paused(ctx); err != nil || len(paused) > 0 {
				t.Errorf("paused: %v %v", paused, err)
			}
			after, err := l.PoolerConfigs(ctx)
			must(err)
			for name := range before {
				for k, v := range before[name] {
					if after[name][k] != v {
						t.Errorf("%s: %s was %q, is %q", name, k, v, after[name][k])
					}
				}
			}

			// One member loses the DCS, the others do not.
			leader, err := l.Leader(ctx)
			must(err)
			watch := l.WatchWritable(20 * time.Millisecond)
			leader.CutDCS()
			next, err := l.WaitLeader(ctx, leader)
			must(err)
			leader.HealDCS()
			must(l.WaitHealthy(ctx))
			report := watch.Stop()
			t.Logf("DCS cut from %s, %s took over: %v", leader.Name, next.Name, report)
			if len(report.Spans[leader.Name]) == 0 || len(report.Spans[next.Name]) == 0 {
				t.Errorf("the watch did not see both write: %v", report)
			}

			// Container stop, frozen Patroni, restart, reinit.
			must(next.RestartPostgres(ctx))
			must(next.Freeze())
			if p, err := next.Patroni(); err != nil || p.State != 'T' {
				t.Errorf("frozen: %+v %v", p, err)
			}
			must(next.Thaw())
			must(next.Term(ctx))
			_, err = l.WaitLeader(ctx, next)
			must(err)
			must(next.Start())
			must(l.WaitHealthy(ctx))
			replicas, err := l.Replicas(ctx)
			must(err)
			must(replicas[0].Reinit(ctx))
			must(replicas[1].KillPatroni())
			for replicas[1].Running() {
				must(ctx.Err())
			}
			must(replicas[1].Start())
			must(l.WaitHealthy(ctx))

			events, err := l.TimeLine(h.Began, h.Writable)
			must(err)
			sources := map[string]bool{}
			for _, e := range events {
				sources[strings.Fields(e.Source)[0]+" "+strings.TrimPrefix(e.Source, strings.Fields(e.Source)[0]+" ")] = true
			}
			for _, want := range []string{h.From.Name + " patroni", h.To.Name + " postgresql"} {
				if !sources[want] {
					t.Errorf("the time line has nothing of %q: %v", want, sources)
				}
			}
		})
	}
}

func TestHAProxyRoute(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l := startLab(ctx, t, lab.Options{Route: lab.RouteHAProxy, Members: 2, Poolers: 2}.Quick())
	h, err := l.Switchover(ctx, "m2")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("writable after %.2f s", h.Took().Seconds())
}

// A process that dies without Close leaves no process; the next Start removes its files.
func TestKilledOwner(t *testing.T) {
	needRoot(t)
	if os.Getenv("PGBATON_LAB_OWNER") == "1" {
		l, err := lab.Start(context.Background(), lab.Options{Members: 1}.Quick())
		if err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("started " + l.Members()[0].DataDir() + "\n")
		select {}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	owner := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestKilledOwner$")
	owner.Env = append(os.Environ(), "PGBATON_LAB_OWNER=1")
	owner.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	var data string
	for buf := make([]byte, 4096); data == ""; {
		n, err := r.Read(buf)
		out.Write(buf[:n])
		if _, after, ok := strings.Cut(out.String(), "started "); ok && strings.Contains(after, "\n") {
			data, _, _ = strings.Cut(after, "\n")
		} else if err != nil {
			t.Fatalf("%v: %s", err, out.String())
		}
	}
	pidFile, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil || len(pidFile) == 0 {
		t.Fatal(err)
	}
	owner.Process.Kill()
	owner.Wait()
	// Its servers have its tmpfs as a working directory or root.
	dir := filepath.Dir(filepath.Dir(data))
	deadline := time.Now().Add(10 * time.Second)
	for {
		left := 0
		paths, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
		for _, p := range paths {
			if strings.Contains(p, "/self/") {
				continue
			}
			if content, err := os.ReadFile(p); err == nil && strings.Contains(string(content), "upperdir="+dir+"/") {
				left++
			}
		}
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d processes of the lab are left", left)
		}
	}
	startLab(ctx, t, lab.Options{Members: 1}.Quick())
}
