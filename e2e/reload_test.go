package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/api"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// in runs one case of several that share a cluster. Each leaves it as it has found it.
func (c *cluster) in(name string, run func(c *cluster)) {
	c.t.Run(name, func(t *testing.T) {
		one := *c
		one.t = t
		run(&one)
	})
}

// reloaded is what a run of `pgbaton reload --output json` has left.
type reloaded struct {
	Exec     lab.ExecResult `json:"-"`
	Code     int            `json:"code"`
	Decision string         `json:"decision"`
	api.ReloadReport
}

func (r reloaded) String() string {
	return fmt.Sprintf("exit code %d after %s\n%s\n%s", r.Exec.ExitCode, r.Exec.Took.Round(time.Millisecond), r.Exec.Stdout, r.Exec.Stderr)
}

// reload runs it in a member to its end.
func (c *cluster) reload(m *lab.Member, config string, args ...string) reloaded {
	c.t.Helper()
	return c.reloadEnv(m, nil, config, args...)
}

func (c *cluster) reloadEnv(m *lab.Member, env []string, config string, args ...string) reloaded {
	c.t.Helper()
	exec, err := m.Exec(c.ctx, env, reloadCommand(config, args)...)
	c.must(err)
	return c.parse(exec)
}

func reloadCommand(config string, args []string) []string {
	return append([]string{"/callbacks/reload", "--config", config, "--output", "json"}, args...)
}

func (c *cluster) parse(exec lab.ExecResult) reloaded {
	c.t.Helper()
	c.secretsKept(exec.Stdout + exec.Stderr)
	r := reloaded{Exec: exec}
	if err := json.Unmarshal([]byte(exec.Stdout), &r); err != nil {
		c.t.Fatalf("not JSON: %v: %s", err, r)
	}
	if r.Code != exec.ExitCode {
		c.t.Errorf("the report says code %d: %s", r.Code, r)
	}
	return r
}

// secretsKept fails the test where a password of the lab is in a text.
func (c *cluster) secretsKept(text string) {
	c.t.Helper()
	for _, secret := range []string{c.AdminPassword, c.SuperuserPassword, restPassword, wrongPassword} {
		if strings.Contains(text, secret) {
			c.t.Errorf("a password is shown: %s", strings.ReplaceAll(text, secret, "<PASSWORD>"))
		}
	}
}

const (
	restPassword  = "rest-8d1f0a62c4"
	wrongPassword = "wrong-57b90e13aa"
)

// underWay is a reload that runs while the test does something.
type underWay struct {
	c      *cluster
	stderr string // host path
	ended  chan struct{}
	exec   lab.ExecResult
	err    error
}

// begin starts a reload and returns while it runs.
func (c *cluster) begin(m *lab.Member, config string, args ...string) *underWay {
	name := fmt.Sprintf("reload-%d.log", time.Now().UnixNano())
	u := &underWay{c: c, stderr: m.LogFile(name), ended: make(chan struct{})}
	go func() {
		defer close(u.ended)
		u.exec, u.err = m.Exec(
			c.ctx,
			nil,
			append([]string{"sh", "-c", `exec "$@" 2>/var/log/lab/` + name, "sh"}, reloadCommand(config, args)...)...)
	}()
	c.t.Cleanup(func() { <-u.ended })
	return u
}

// says waits until it has said something on stderr.
func (u *underWay) says(text string) {
	u.c.t.Helper()
	u.c.eventually(15*time.Second, fmt.Sprintf("reload says %q", text), func() error {
		log, _ := os.ReadFile(u.stderr)
		if strings.Contains(string(log), text) {
			return nil
		}
		select {
		case <-u.ended:
			u.c.t.Fatalf("reload has ended and has not said %q: %s%s", text, u.exec.Stdout, log)
		default:
		}
		return fmt.Errorf("it has said: %s", log)
	})
}

func (u *underWay) running() bool {
	select {
	case <-u.ended:
		return false
	default:
		return true
	}
}

// end waits for its end.
func (u *underWay) end() reloaded {
	u.c.t.Helper()
	<-u.ended
	u.c.must(u.err)
	log, err := os.ReadFile(u.stderr)
	u.c.must(err)
	u.exec.Stderr = string(log)
	return u.c.parse(u.exec)
}

// ends checks how it ended: the exit code, the problem's name, and words that must be in what it said.
func (c *cluster) ends(r reloaded, code int, problem string, says ...string) {
	c.t.Helper()
	if r.Code != code || r.Problem != problem {
		c.t.Fatalf("want exit code %d, problem %q: %s", code, problem, r)
	}
	for _, text := range says {
		if !strings.Contains(r.Exec.Stdout+r.Exec.Stderr, text) {
			c.t.Errorf("says nothing of %q: %s", text, r)
		}
	}
}

// patch changes Patroni's dynamic configuration; Patroni goes by it soon, reload or not.
func (c *cluster) patch(config map[string]any) {
	c.t.Helper()
	status, answer, err := c.leader().REST(c.ctx, http.MethodPatch, "/config", config)
	c.must(err)
	if status != http.StatusOK {
		c.t.Fatalf("PATCH /config: %d %s", status, answer)
	}
}

func (c *cluster) patchParameters(parameters map[string]any) {
	c.t.Helper()
	c.patch(map[string]any{"postgresql": map[string]any{"parameters": parameters}})
}

// loadTime is pg_conf_load_time().
func (c *cluster) loadTime(m *lab.Member) string {
	c.t.Helper()
	return c.value(m, "SELECT to_char(pg_conf_load_time() AT TIME ZONE 'UTC', 'HH24:MI:SS.US') AS v")
}

func (c *cluster) show(m *lab.Member, setting string) string {
	c.t.Helper()
	return c.value(m, fmt.Sprintf("SELECT current_setting('%s') AS v", setting))
}

func (c *cluster) value(m *lab.Member, query string) string {
	c.t.Helper()
	rows, err := m.SQL(c.ctx, query)
	c.must(err)
	return rows[0]["v"]
}

// version finds a target's version in a report.
func (c *cluster) version(r reloaded, target string) api.VersionReport {
	c.t.Helper()
	for _, v := range r.Versions {
		if v.Target == target {
			return v
		}
	}
	c.t.Fatalf("no version of %s: %s", target, r)
	return api.VersionReport{}
}

// extend writes lines at the end of a file, in place. It returns the number of their first line and how to take them away.
func (c *cluster) extend(path, lines string) (first int, restore func()) {
	c.t.Helper()
	before, err := os.ReadFile(path)
	c.must(err)
	if !strings.HasSuffix(string(before), "\n") {
		lines = "\n" + lines
	}
	c.must(os.WriteFile(path, append(slices.Clone(before), lines...), 0o644))
	restore = func() {
		if err := os.WriteFile(path, before, 0o644); err != nil {
			c.t.Errorf("%s: %v", filepath.Base(path), err)
		}
	}
	c.t.Cleanup(restore)
	return strings.Count(string(before), "\n") + 1, restore
}

// journalKeepsSecrets looks through what pgbaton has left in a member.
func (c *cluster) journalKeepsSecrets(m *lab.Member) {
	c.t.Helper()
	r, err := m.Exec(c.ctx, nil, "sh", "-c", "cat /run/pgbaton/*")
	c.must(err)
	if !strings.Contains(r.Stdout, "reload") {
		c.t.Errorf("the journal says nothing of a reload: %s", r.Stdout)
	}
	c.secretsKept(r.Stdout)
}
