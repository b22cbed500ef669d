// Package installed_test is a cluster on which nothing of pgbaton is but its package: three members under systemd with Debian's own
// patroni.service, set up as docs/start.md says. It needs root, and dist/packages of make packages.
package installed_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// lease is shorter than the default where a case waits until it is over.
const lease = 8 * time.Second

type cluster struct {
	*lab.Lab
	t   *testing.T
	ctx context.Context
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// try runs a command line in a member, as somebody who has logged in there would.
func (c *cluster) try(m *lab.Member, user, command string) (lab.ExecResult, error) {
	return m.ExecAs(c.ctx, user, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent"}, "sh", "-c", command)
}

// run is try for what has to succeed.
func (c *cluster) run(m *lab.Member, user, command string) (string, error) {
	r, err := c.try(m, user, command)
	if err == nil && r.ExitCode != 0 {
		err = fmt.Errorf("exit code %d", r.ExitCode)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %s: %w\n%s%s", m, command, err, r.Stdout, r.Stderr)
	}
	return r.Stdout, nil
}

func (c *cluster) output(m *lab.Member, user, command string) string {
	c.t.Helper()
	out, err := c.run(m, user, command)
	c.must(err)
	return out
}

// everywhere does something with all members at once.
func (c *cluster) everywhere(do func(m *lab.Member) error) {
	c.t.Helper()
	errs := make([]error, len(c.Members()))
	var wg sync.WaitGroup
	for i, m := range c.Members() {
		wg.Go(func() { errs[i] = do(m) })
	}
	wg.Wait()
	c.must(errors.Join(errs...))
}

func (c *cluster) eventually(limit time.Duration, what string, check func() error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, limit)
	defer cancel()
	c.must(lab.Until(ctx, 50*time.Millisecond, what, func(context.Context) error { return check() }))
}

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

func (c *cluster) paused() bool {
	c.t.Helper()
	paused, err := c.Pooler().Paused(c.ctx)
	c.must(err)
	return paused
}

// start makes the cluster, with the deb where members see it and no hook.
func start(t *testing.T) *cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces and chroot")
	}
	if err := lab.CanSystemd(); err != nil {
		t.Skip(err)
	}
	debs, err := filepath.Glob("../../dist/packages/*_amd64.deb")
	if err != nil || len(debs) != 1 {
		t.Fatalf("dist/packages has %d debs for amd64 (%v): run make packages", len(debs), err)
	}
	dir := t.TempDir()
	deb, err := os.ReadFile(debs[0])
	if err == nil {
		err = errors.Join(os.WriteFile(filepath.Join(dir, "pgbaton.deb"), deb, 0o644), os.Chmod(dir, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	t.Cleanup(cancel)
	began := time.Now()
	l, err := lab.Start(ctx, lab.Options{Suite: "sid", Systemd: true, Callbacks: dir, PgbenchScale: 1, PgbenchRate: 100}.Quick())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("three members under systemd after %s", time.Since(began).Round(time.Second))
	c := &cluster{l, t, ctx}
	t.Cleanup(func() {
		if t.Failed() {
			for _, m := range l.Members() {
				r, err := c.try(m, "root", "journalctl -n 60 --no-pager -o short-precise; cat /etc/pgbaton/pgbaton.yaml")
				t.Logf("%s: %v\n%s%s", m, err, r.Stdout, r.Stderr)
			}
			logs := filepath.Join(os.TempDir(), "pgbaton-installed-logs")
			t.Logf("logs are in %s: %v", logs, errors.Join(os.RemoveAll(logs), os.MkdirAll(logs, 0o755), l.SaveLogs(logs)))
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// commands are those of docs/start.md for virtual machines, in their order; the page is what this test follows.
func commands(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile("../../docs/start.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Set it up on virtual machines\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var found []string
	for _, m := range regexp.MustCompile(`(?m)^\$ (.*)$`).FindAllStringSubmatch(section, -1) {
		found = append(found, m[1])
	}
	want := []string{"pgbaton init --config", "install -o postgres", "pgbaton check", "pgbaton status", "pgbaton switchover --dry-run",
		"pgbaton switchover"}
	if !slices.EqualFunc(found, want, strings.HasPrefix) {
		t.Fatalf("docs/start.md has %q; this test does what begins with %q", found, want)
	}
	return found
}

// setUp does on one member what the page says up to the check.
func (c *cluster) setUp(m *lab.Member, commands []string) error {
	// The lab's own password file is nothing that people have.
	if _, err := c.run(m, "root", "rm /var/lib/postgresql/.pgpass; dpkg -i /callbacks/pgbaton.deb && rm /etc/pgbaton/pgbaton.yaml"); err != nil {
		return err
	}
	said, err := c.run(m, "root", commands[0])
	if err != nil {
		return err
	}
	// Members on one machine: each serve has an address of its own.
	if _, err := c.run(m, "root", fmt.Sprintf(`set -e; echo %s | %s; cd /etc/pgbaton
		sed -i 's/# password_file/password_file/' pgbaton.yaml
		printf 'serve: {listen: "%s:8009"}\n' >>pgbaton.yaml`, c.AdminPassword, commands[1], m.Address)); err != nil {
		return err
	}
	lines := regexp.MustCompile(`(?m)^  (postgresql:\n(?:    .*\n)+)`).FindStringSubmatch(said)
	if lines == nil {
		return fmt.Errorf("%s: pgbaton init prints no lines for Patroni: %s", m, said)
	}
	var add struct{ Postgresql map[string]any }
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(lines[1], "\n  ", "\n")), &add); err != nil {
		return err
	}
	if err := m.WriteConfig(func(config map[string]any) {
		maps.Copy(config["postgresql"].(map[string]any), add.Postgresql)
	}, ""); err != nil {
		return err
	}
	if _, err := c.run(m, "root", "patronictl -c /etc/patroni/config.yml reload "+c.Scope+" "+m.Name+" --force"); err != nil {
		return err
	}
	_, err = c.run(m, "root", "systemctl enable --now pgbaton.service")
	return err
}

// ask is a GET of a member's serve.
func (c *cluster) ask(m *lab.Member, path string) (string, error) {
	request, err := http.NewRequestWithContext(c.ctx, http.MethodGet, "http://"+m.Address+":8009"+path, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s %s", path, response.Status, body)
	}
	return string(body), err
}

// TestFromThePackage: installed, set up and used as docs/start.md says; the service does what its unit says; and the drop-in for Patroni's
// unit is what keeps the keeper of a pause alive.
func TestFromThePackage(t *testing.T) {
	c := start(t)
	commands := commands(t)
	began := time.Now()
	c.everywhere(func(m *lab.Member) error { return c.setUp(m, commands) })
	c.everywhere(func(m *lab.Member) error { // Patroni reads its file again in its next loop
		ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
		defer cancel()
		return lab.Until(ctx, time.Second, fmt.Sprintf("%s: a check that finds nothing", m), func(context.Context) error {
			_, err := c.run(m, "postgres", commands[2])
			return err
		})
	})
	t.Logf("installed and set up within %s", time.Since(began).Round(time.Second))
	for _, step := range []struct {
		name string
		run  func()
	}{{"switchover", func() { c.switchover(commands[3:]) }}, {"service", c.service}, {"drop-in", c.dropIn}} {
		if !t.Run(step.name, func(t *testing.T) { c.t = t; step.run() }) {
			break
		}
	}
	c.t = t
}

// switchover does under load what the page says from the check on.
func (c *cluster) switchover(commands []string) {
	probe, err := c.StartProbe(c.ctx, 8, 10*time.Millisecond)
	c.must(err)
	bench, err := c.StartPgbench(c.ctx, c.Pooler(), 4, 4)
	c.must(err)
	from := c.leader()
	commands[len(commands)-1] += " --yes" // nobody can be asked here
	for _, command := range commands {
		c.t.Logf("$ %s\n%s", command, c.output(from, "postgres", command))
	}
	c.must(probe.WaitFlowing(c.ctx, 20))
	result := probe.Stop()
	of, err := bench.Stop(c.ctx)
	c.must(err)
	c.must(result.VerifyWrites(c.ctx, c.Lab))
	to := c.leader()
	c.t.Logf("%s to %s: longest stall %s, %d writes, %d transactions", from, to, result.LongestStall.Length(), result.Acked, of.Transactions)
	if to == from || len(result.Errors) > 0 || of.Aborted > 0 || c.paused() {
		c.t.Errorf("%s to %s, %d errors: %v; pgbench: %d clients aborted: %v; paused: %v", from, to, len(result.Errors), result.ErrorTexts(),
			of.Aborted, of.Errors, c.paused())
	}
	c.healthy()
}

// service asks the service, looks at its walls from inside, and stops it.
func (c *cluster) service() {
	m := c.leader()
	c.eventually(30*time.Second, "the service answers", func() error {
		health, err := c.ask(m, "/healthz")
		if err == nil && strings.TrimSpace(health) != `{"status":"ok"}` {
			err = errors.New(health)
		}
		return err
	})
	body, err := c.ask(m, "/v1/status")
	c.must(err)
	var status struct {
		Member   string
		Role     string
		Handover *struct{ Outcome string }
	}
	if err := json.Unmarshal([]byte(body), &status); err != nil || status.Member != m.Name {
		c.t.Errorf("GET /v1/status: %v\n%s", err, body)
	}
	c.t.Logf("GET /v1/status: %.300s", body)
	pid := strings.TrimSpace(c.output(m, "root", "systemctl show -P MainPID pgbaton.service"))
	touch := func(file string) lab.ExecResult { // as the service sees it
		c.t.Helper()
		r, err := c.try(m, "root", "touch /proc/"+pid+"/root"+file)
		c.must(err)
		return r
	}
	for _, file := range []string{"/usr/bin/x", "/etc/x", "/var/lib/postgresql/x"} {
		if r := touch(file); r.ExitCode == 0 || !strings.Contains(r.Stderr, "Read-only file system") {
			c.t.Errorf("ProtectSystem=strict: touch %s: %+v", file, r)
		}
	}
	if r := touch("/run/pgbaton/x"); r.ExitCode != 0 {
		c.t.Errorf("its runtime directory: %s", r.Stderr)
	}
	c.output(m, "root", "rm /run/pgbaton/x; test $(stat -c %U:%a /run/pgbaton) = postgres:700")
	began := time.Now()
	c.output(m, "root", "systemctl stop pgbaton.service")
	took := time.Since(began)
	got := strings.Fields(c.output(m, "root",
		"systemctl show --value -p ActiveState -p Result -p ExecMainStatus pgbaton.service; ls -d /run/pgbaton"))
	c.t.Logf("stopped within %s: %v", took.Round(time.Millisecond), got)
	for _, want := range []string{"inactive", "success", "0", "/run/pgbaton"} {
		if !slices.Contains(got, want) {
			c.t.Errorf("stopped: no %q in %q", want, got)
		}
	}
	c.output(m, "root", "systemctl start pgbaton.service")
}

// dropIn stops Patroni on the primary while nobody can take over, so that only the keeper ends the pause: with the drop-in it does; where
// Patroni's unit says KillMode=mixed, systemd ends the keeper too.
func (c *cluster) dropIn() {
	c.everywhere(func(m *lab.Member) error {
		_, err := c.run(m, "root", fmt.Sprintf("echo 'pause: {lease: %s}' >>/etc/pgbaton/pgbaton.yaml", lease))
		return err
	})
	for _, killMode := range []string{"process", "mixed"} {
		m := c.leader()
		if killMode != "process" {
			c.output(m, "root", `mkdir -p /etc/systemd/system/patroni.service.d
				printf '[Service]\nKillMode=`+killMode+`\n' >/etc/systemd/system/patroni.service.d/zz.conf && systemctl daemon-reload`)
		}
		if got := strings.TrimSpace(c.output(m, "root", "systemctl show -P KillMode patroni.service")); got != killMode {
			c.t.Fatalf("KillMode=%s", got)
		}
		c.output(m, "root", "systemctl stop pgbaton.service") // serve takes up a lease that has lost its keeper
		replicas, err := c.Replicas(c.ctx)
		c.must(err)
		for _, r := range replicas {
			c.must(r.Freeze())
		}
		c.output(m, "root", "systemctl stop patroni.service")
		stopped := time.Now()
		_, alive := m.FindProcess("_keep")
		c.t.Logf("KillMode=%s: Patroni is stopped, its keeper lives: %v", killMode, alive)
		if !c.paused() || alive != (killMode == "process") {
			c.t.Errorf("KillMode=%s: paused: %v, a keeper: %v", killMode, c.paused(), alive)
		}
		if killMode == "process" {
			c.eventually(3*lease, "the keeper ends the pause", func() error {
				if c.paused() {
					return errors.New("the pooler is paused")
				}
				return nil
			})
			c.t.Logf("the keeper has ended the pause %s later", time.Since(stopped).Round(100*time.Millisecond))
		} else {
			for time.Since(stopped) < lease+lease/2 {
				if !c.paused() {
					c.t.Fatalf("KillMode=%s: somebody has ended the pause after %s", killMode, time.Since(stopped))
				}
				time.Sleep(100 * time.Millisecond)
			}
		}
		for _, r := range replicas {
			c.must(r.Thaw())
		}
		c.output(m, "root", "systemctl start patroni.service")
		c.healthy()
		c.eventually(30*time.Second, "the new primary's worker ends the pause", func() error {
			if c.paused() {
				return errors.New("the pooler is paused")
			}
			return nil
		})
	}
}
