package main

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/member/membertest"
)

// stopped is a cluster of two members, whose servers restart when they are let, and pgbaton on m1.
type stopped struct {
	*membertest.Cluster
	t       *testing.T
	program string
	dir     string
	let     chan struct{} // a restart goes on
}

func newStopped(t *testing.T) *stopped {
	t.Helper()
	x := &stopped{Cluster: membertest.NewCluster(t), t: t, dir: t.TempDir(), let: make(chan struct{}, 1)}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	x.program = filepath.Join(x.dir, "pgbaton")
	if err := os.Symlink(self, x.program); err != nil {
		t.Fatal(err)
	}
	text := "patroni: {url: " + x.Servers["m1"].URL + "}\npostgres: host=" + x.dir + " user=postgres\nstate_dir: " + x.dir + "/state\n"
	if err := os.WriteFile(x.dir+"/pgbaton.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	x.Order = func(w http.ResponseWriter, name, path string) {
		if path == "/switchover" {
			x.Change(func() { x.Leader, x.Timeline, x.Started["m1"] = "m2", x.Timeline+1, time.Now() })
			membertest.Say(w, http.StatusOK, "Successfully switched over to \"m2\"")
			return
		}
		select {
		case <-x.let:
			x.Change(func() { x.Started[name] = time.Now() })
			membertest.Say(w, http.StatusOK, "restarted successfully")
		case <-t.Context().Done():
		}
	}
	return x
}

func (x *stopped) command(args ...string) *exec.Cmd {
	cmd := exec.Command(x.program, append([]string{"restart", "--config", x.dir + "/pgbaton.yaml"}, args...)...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "TERM=xterm")
	return cmd
}

// onTerminal starts a rolling restart on a terminal, agrees to it, and waits until the first restart is ordered.
func (x *stopped) onTerminal() (*terminal, *exec.Cmd) {
	x.t.Helper()
	cmd := x.command("--rolling", "--skip-checks")
	term := openTerminal(x.t, 140, cmd)
	term.await("restart m2")
	term.await("switchover m1 → m2")
	term.await("Do it? [y/N] ")
	if orders := x.Orders(); len(orders) > 0 {
		x.t.Fatalf("before it was agreed to: %v", orders)
	}
	term.send("y\n")
	membertest.Eventually(x.t, "the first restart is ordered", func() bool { return len(x.Orders()) == 1 })
	return term, cmd
}

// ends waits for a command's end: its exit code, and what was said.
func (x *stopped) ends(cmd *exec.Cmd, term *terminal, code int, said ...string) {
	x.t.Helper()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || cmd.ProcessState.ExitCode() != code {
		x.t.Errorf("%v, want exit code %d", err, code)
	}
	<-term.ended
	for _, text := range said {
		if !strings.Contains(term.text(), text) {
			x.t.Errorf("not said: %q\n%s", text, term.text())
		}
	}
}

// goesOn resumes the run, which ends well, and checks that each order was given once.
func (x *stopped) goesOn() {
	x.t.Helper()
	out, err := x.command("--resume").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "m2 is primary on timeline 4") {
		x.t.Errorf("%v\n%s", err, out)
	}
	if orders := x.Orders(); !slices.Equal(orders, []string{"m2/restart", "m1/switchover"}) {
		x.t.Errorf("orders: %v", orders)
	}
}

// TestStopAfterTheStep: one Ctrl-C lets the step that is under way end, says what is left and how to go on.
func TestStopAfterTheStep(t *testing.T) {
	t.Parallel()
	x := newStopped(t)
	term, cmd := x.onTerminal()
	term.send("\x03")
	term.await("stopping after the step that is under way")
	x.let <- struct{}{}
	x.ends(cmd, term, 1, "[x] 1  restart m2", "stopped as asked, after 1 step(s), left: switchover from m1 to m2",
		"`pgbaton restart --resume` goes on")
	x.goesOn()
}

// TestStopAtOnce: the second Ctrl-C ends it in the middle of the step, and Patroni goes on.
func TestStopAtOnce(t *testing.T) {
	t.Parallel()
	x := newStopped(t)
	term, cmd := x.onTerminal()
	term.send("\x03")
	term.await("once more stops at once")
	began := time.Now()
	term.send("\x03")
	x.ends(cmd, term, 1, "stopping at once", "stopped in the middle of a step, Patroni goes on with it", "`pgbaton restart --resume`")
	// It looks once more, for at most 4 s.
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("it has ended after %s", took)
	}
	if orders := x.Orders(); !slices.Equal(orders, []string{"m2/restart"}) {
		t.Errorf("orders: %v", orders)
	}
	x.Change(func() { x.Started["m2"] = time.Now() }) // as Patroni does with what it was asked
	x.goesOn()
}

// TestNotAgreed: whoever says no, says nothing, or presses Ctrl-C at the question has touched nothing.
func TestNotAgreed(t *testing.T) {
	for name, keys := range map[string]string{"no": "n\n", "nothing": "\n", "Ctrl-D": "\x04", "Ctrl-C": "\x03"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newStopped(t)
			cmd := x.command("--rolling", "--skip-checks")
			term := openTerminal(t, 140, cmd)
			term.await("Do it? [y/N] ")
			term.send(keys)
			x.ends(cmd, term, 4, "not agreed to: nothing was done")
			if orders := x.Orders(); len(orders) > 0 {
				t.Errorf("orders: %v", orders)
			}
			if files, err := filepath.Glob(x.dir + "/state/run-*"); err != nil || len(files) > 0 {
				t.Errorf("%v %v", files, err)
			}
		})
	}
}
