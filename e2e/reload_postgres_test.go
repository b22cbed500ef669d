package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/api"

	"github.com/pgbaton/pgbaton/configversion"
	"github.com/pgbaton/pgbaton/e2e/lab"
)

const bySetting = "versions: {postgres: {setting: pgbaton.config_version}}"

// applied checks a reload of the server that went well.
func (c *cluster) applied(r reloaded, how string) {
	c.t.Helper()
	c.ends(r, 0, "")
	p := r.Postgres
	if p == nil || p.Done != api.ReloadDone || !p.Verified || !p.Loaded.After(p.LoadedBefore) || len(p.FileErrors) > 0 ||
		!strings.HasPrefix(p.How, how) {
		c.t.Errorf("want it reloaded by %s and verified: %s", how, r)
	}
}

// isVersion checks where a version was seen; nil does not check that place.
func (c *cluster) isVersion(r reloaded, want configversion.Version, places ...string) {
	c.t.Helper()
	v := c.version(r, api.TargetPostgres)
	for _, place := range places {
		got := map[string]*configversion.Version{"seen": v.Seen, "on disk": v.OnDisk, "applied": v.Applied}[place]
		if got == nil || *got != want {
			c.t.Errorf("want version %d %s: %s", want, place, r)
		}
	}
}

// reloads counts what Patroni says at the end of each reading of its configuration.
func (c *cluster) reloads(m *lab.Member) int {
	c.t.Helper()
	log, err := os.ReadFile(m.LogFile("patroni.log"))
	c.must(err)
	return bytes.Count(log, []byte("nothing to reload")) + bytes.Count(log, []byte("Reloading PostgreSQL configuration"))
}

// TestReloadPostgres: done means applied, and what is not is said with file and line.
func TestReloadPostgres(t *testing.T) {
	together(t, func(t *testing.T, suite string) {
		c := startQuiet(t, lab.Options{Suite: suite, Members: 2, Parameters: map[string]string{"pgbaton.config_version": "41"},
			// m1 is the leader, and m2 wants a password.
			Patroni: func(m *lab.Member, config map[string]any) {
				if m.Name == "m2" {
					config["restapi"].(map[string]any)["authentication"] = map[string]any{"username": "operator", "password": restPassword}
				}
			}}.Quick())
		m, guarded := c.leader(), c.Member("m2")
		if m == guarded {
			t.Fatal("m2 is the leader")
		}
		c.must(c.write("rest-password", restPassword+"\n"))
		c.must(c.write("wrong-password", wrongPassword+"\n"))
		withPassword := func(file string) string {
			return `patroni: {url: "http://${HOSTNAME}:8008", username: operator, password_file: /callbacks/` + file +
				`, config: /etc/lab/patroni.yml}`
		}
		// untouched checks that a server's files were not read again.
		untouched := func(c *cluster, m *lab.Member, run func()) {
			c.t.Helper()
			before, reloads := c.loadTime(m), c.reloads(m)
			run()
			if now := c.loadTime(m); now != before {
				c.t.Errorf("pg_conf_load_time() was %s and is %s", before, now)
			}
			if now := c.reloads(m); now != reloads {
				c.t.Errorf("Patroni has read its configuration %d times meanwhile", now-reloads)
			}
		}

		// quiet waits until Patroni has nothing more to reload, so that what is seen then was asked for then.
		quiet := func(c *cluster) {
			c.t.Helper()
			c.eventually(15*time.Second, "two loops of Patroni without a reload", func() error {
				log, err := os.ReadFile(m.LogFile("patroni.log"))
				c.must(err)
				last := max(
					bytes.LastIndex(log, []byte("nothing to reload")),
					bytes.LastIndex(log, []byte("Reloading PostgreSQL configuration")),
				)
				if bytes.Count(log[last+1:], []byte("no action. I am")) < 2 {
					return errNotYet
				}
				return nil
			})
		}

		quiet(c)
		// First those after which nothing may have been reloaded: a change of the dynamic configuration reloads by itself.
		c.in("dry run", func(c *cluster) {
			untouched(c, m, func() {
				r := c.reload(m, c.yaml(bySetting), "postgres", "--dry-run", "--config-version", "42")
				c.ends(r, 0, "", "would wait for configuration version 42")
				if r.Postgres == nil || r.Postgres.Done != api.ReloadWould || r.Postgres.How != "POST /reload" || r.Postgres.Verified {
					c.t.Errorf("%s", r)
				}
			})
		})
		c.in("version is not a number", func(c *cluster) {
			config := c.yaml("versions: {postgres: {file: /callbacks/postgres.version}}")
			c.must(c.write("postgres.version", "v42\n"))
			untouched(c, m, func() {
				r := c.reload(m, config, "postgres", "--config-version", "42", "--timeout", "1m")
				c.ends(r, 1, api.ProblemVersionInvalid, "3 bytes that are not a number", "/callbacks/postgres.version")
				if r.Postgres != nil || r.Exec.Took > 10*time.Second {
					c.t.Errorf("not at once: %s", r)
				}
			})
		})
		c.in("version never arrives", func(c *cluster) {
			config := c.yaml(bySetting)
			untouched(c, m, func() {
				r := c.reload(m, config, "postgres", "--config-version", "42", "--timeout", "3s")
				c.ends(r, 1, api.ProblemVersionTimeout, "41")
				c.isVersion(r, 41, "seen")
				if asked := c.version(r, api.TargetPostgres).Asked; asked == nil || *asked != 42 {
					c.t.Errorf("asked for 42: %s", r)
				}
				if r.Postgres != nil || r.Exec.Took < 3*time.Second || r.Exec.Took > 6*time.Second {
					c.t.Errorf("%s", r)
				}
			})
		})
		c.in("wrong password", func(c *cluster) {
			config := c.yaml(withPassword("wrong-password"))
			untouched(c, guarded, func() {
				r := c.reload(guarded, config, "postgres")
				c.ends(r, 1, api.ProblemUnreachable, "401")
				if p := r.Postgres; p == nil || p.Done != api.ReloadNot || p.How != "" {
					c.t.Errorf("something was tried after the refusal: %s", r)
				}
			})
		})

		c.in("no version asked for", func(c *cluster) {
			before := c.loadTime(m)
			r := c.reload(m, c.yaml(), "postgres")
			c.applied(r, "POST /reload")
			if c.loadTime(m) == before {
				c.t.Errorf("pg_conf_load_time() is still %s", before)
			}
			if len(r.Postgres.PendingRestart) > 0 {
				c.t.Errorf("nothing waits for a restart: %s", r)
			}
		})
		c.in("version arrives late", func(c *cluster) {
			before := c.loadTime(m)
			u := c.begin(m, c.yaml(bySetting), "postgres", "--config-version", "42", "--timeout", "30s")
			u.says("waiting for configuration version 42")
			if c.loadTime(m) != before {
				c.t.Error("reloaded before the version was there")
			}
			c.patchParameters(map[string]any{"pgbaton.config_version": "42", "work_mem": "7777kB"})
			r := u.end()
			c.applied(r, "POST /reload")
			c.isVersion(r, 42, "seen", "on disk", "applied")
			if work := c.show(m, "work_mem"); work != "7777kB" || c.loadTime(m) == before {
				c.t.Errorf("work_mem is %s, loaded at %s, before %s", work, c.loadTime(m), before)
			}
			// On the replica, with the password that its Patroni wants; a newer version than the one asked for.
			r = c.reload(guarded, c.yaml(bySetting, withPassword("rest-password")), "postgres", "--config-version", "7")
			c.applied(r, "POST /reload")
			c.isVersion(r, 42, "seen", "on disk", "applied")
			if work := c.show(guarded, "work_mem"); work != "7777kB" {
				c.t.Errorf("work_mem of the replica is %s", work)
			}
		})
		c.in("version in the DCS is not a number", func(c *cluster) {
			c.patchParameters(map[string]any{"pgbaton.config_version": "latest"})
			defer c.patchParameters(map[string]any{"pgbaton.config_version": "43"})
			r := c.reload(m, c.yaml(bySetting), "postgres", "--config-version", "43", "--timeout", "1m")
			c.ends(r, 1, api.ProblemVersionInvalid, "6 bytes that are not a number")
			if r.Postgres != nil || r.Exec.Took > 10*time.Second {
				c.t.Errorf("not at once: %s", r)
			}
		})
		// Patroni's own file changes, and reads nothing before it is told to.
		withWorkMem := func(value string) func(map[string]any) {
			return func(config map[string]any) {
				config["postgresql"].(map[string]any)["parameters"].(map[string]any)["work_mem"] = value
			}
		}
		for _, source := range []struct {
			kind, path, value string
			arrive            func(c *cluster)
		}{
			{"line", "/etc/lab/patroni.yml", "6001kB", func(c *cluster) {
				c.must(m.WriteConfig(withWorkMem("6001kB"), "# config-version: 50\n"))
			}},
			{"file", "/callbacks/postgres.version", "6002kB", func(c *cluster) {
				c.must(m.WriteConfig(withWorkMem("6002kB"), ""))
				c.must(c.write("postgres.version", "50\n"))
			}},
		} {
			c.in("version in a "+source.kind, func(c *cluster) {
				c.must(c.write("postgres.version", "49\n"))
				u := c.begin(
					m,
					c.yaml(fmt.Sprintf("versions: {postgres: {%s: %s}}", source.kind, source.path)),
					"postgres",
					"--config-version",
					"50",
					"--timeout",
					"30s",
				)
				u.says("waiting for configuration version 50")
				source.arrive(c)
				defer func() { c.must(m.WriteConfig(nil, "")) }()
				r := u.end()
				c.applied(r, "POST /reload")
				c.isVersion(r, 50, "seen", "applied")
				if work := c.show(m, "work_mem"); work != source.value {
					c.t.Errorf("work_mem is %s", work)
				}
			})
		}

		c.in("a local file that Patroni cannot load", func(c *cluster) {
			// Patroni reloads all the same, with what it had.
			c.must(m.WriteConfig(withWorkMem("6003kB"), "\t# a tab\n# config-version: 51\n"))
			defer func() { c.must(m.WriteConfig(nil, "")) }()
			untouched(c, m, func() {
				r := c.reload(
					m,
					c.yaml("versions: {postgres: {line: /etc/lab/patroni.yml}}"),
					"postgres",
					"--config-version",
					"51",
					"--timeout",
					"30s",
				)
				c.ends(r, 1, api.ProblemInvalidFile, "/etc/lab/patroni.yml:", "nothing was reloaded")
				c.isVersion(r, 51, "seen")
				if p := r.Postgres; p.Done != api.ReloadNot || len(p.FileErrors) != 1 || p.FileErrors[0].Line == 0 ||
					c.version(r, api.TargetPostgres).Applied != nil {
					c.t.Errorf("%s", r)
				}
			})
		})

		base := filepath.Join(m.DataDir(), "postgresql.base.conf")
		bad := func(c *cluster, config, file string, line int, says ...string) {
			c.t.Helper()
			r := c.reload(m, config, "postgres")
			c.ends(r, 1, api.ProblemInvalidFile, append(says, fmt.Sprintf("%s:%d", file, line))...)
			if p := r.Postgres; p.Verified || !slices.ContainsFunc(p.FileErrors, func(e api.FileError) bool {
				return strings.HasSuffix(e.File, "/"+file) && e.Line == line && e.Problem != ""
			}) {
				c.t.Errorf("want an error in %s:%d: %s", file, line, r)
			}
		}
		good := func(c *cluster) {
			c.t.Helper()
			c.applied(c.reload(m, c.yaml(), "postgres"), "POST /reload")
		}
		c.in("syntax error in an included postgresql.conf", func(c *cluster) {
			included := filepath.Join(m.DataDir(), "extra.conf")
			c.must(os.WriteFile(included, []byte("# 1\nwork_mem = 4MB 5MB\n"), 0o644))
			defer os.Remove(included)
			_, restore := c.extend(base, "include 'extra.conf'\n")
			before := c.loadTime(m)
			bad(c, c.yaml(), "extra.conf", 2)
			if now := c.loadTime(m); now != before {
				c.t.Errorf("PostgreSQL has taken a file with a syntax error")
			}
			restore()
			good(c)
		})
		c.in("bad value in postgresql.conf", func(c *cluster) {
			line, restore := c.extend(base, "statement_timeout = 'soon'\n")
			bad(c, c.yaml(), "postgresql.base.conf", line, "statement_timeout")
			restore()
			good(c)
		})
		c.in("bad value in the DCS", func(c *cluster) {
			// Patroni leaves it out, with a warning in its log, and PostgreSQL sees nothing wrong. The version arrives all the same.
			c.patchParameters(map[string]any{"pgbaton.config_version": "55", "statement_timeout": "soon"})
			r := c.reload(m, c.yaml(bySetting), "postgres", "--config-version", "55")
			c.ends(r, 1, api.ProblemInvalidFile, "statement_timeout")
			c.isVersion(r, 55, "seen", "applied")
			c.patchParameters(map[string]any{"pgbaton.config_version": "56", "statement_timeout": nil})
			c.applied(c.reload(m, c.yaml(bySetting), "postgres", "--config-version", "56"), "POST /reload")
		})
		c.in("syntax error in pg_hba.conf", func(c *cluster) {
			c.must(m.WriteConfig(func(config map[string]any) {
				p := config["postgresql"].(map[string]any)
				p["pg_hba"] = append(p["pg_hba"].([]string), "host all all 10.0.0.0/33 trust")
			}, ""))
			defer func() { c.must(m.WriteConfig(nil, "")); good(c) }()
			config := c.yaml()
			r := c.reload(m, config, "postgres")
			c.ends(r, 1, api.ProblemInvalidFile)
			hba, err := os.ReadFile(filepath.Join(m.DataDir(), "pg_hba.conf"))
			c.must(err)
			line := slices.IndexFunc(
				strings.Split(string(hba), "\n"),
				func(s string) bool { return strings.Contains(s, "10.0.0.0/33") },
			) + 1
			if e := r.Postgres.FileErrors; len(e) != 1 || !strings.HasSuffix(e[0].File, "/pg_hba.conf") || e[0].Line != line {
				c.t.Errorf("the error is in pg_hba.conf:%d: %s", line, r)
			}
		})

		c.in("hostssl without ssl", func(c *cluster) {
			// PostgreSQL loads it, with a warning in the column for errors.
			c.must(m.WriteConfig(func(config map[string]any) {
				p := config["postgresql"].(map[string]any)
				p["pg_hba"] = append(p["pg_hba"].([]string), "hostssl all all 10.0.0.0/8 scram-sha-256")
			}, ""))
			defer func() { c.must(m.WriteConfig(nil, "")); good(c) }()
			good(c)
		})

		c.in("a restart is needed", func(c *cluster) {
			// Patroni gives max_connections on the command line; shared_buffers stands in the file.
			u := c.begin(m, c.yaml(bySetting), "postgres", "--config-version", "60", "--timeout", "30s")
			u.says("waiting for configuration version 60")
			c.patchParameters(map[string]any{"pgbaton.config_version": "60", "max_connections": 310, "shared_buffers": "65MB"})
			r := u.end()
			c.applied(r, "POST /reload")
			var pending []string
			for _, p := range r.Postgres.PendingRestart {
				pending = append(pending, p.Name+" "+p.Running+" → "+p.File)
			}
			if want := []string{"max_connections 300 → 310", "shared_buffers 64MB → 65MB"}; !slices.Equal(pending, want) {
				c.t.Errorf("a restart is needed for %q, want %q: %s", pending, want, r)
			}
			c.patchParameters(
				map[string]any{"pgbaton.config_version": "61", "max_connections": 300, "shared_buffers": "64MB", "work_mem": nil},
			)
			r = c.reload(m, c.yaml(bySetting), "postgres", "--config-version", "61")
			c.applied(r, "POST /reload")
			if len(r.Postgres.PendingRestart) > 0 {
				c.t.Errorf("nothing waits for a restart any more: %s", r)
			}
		})

		notSeen := func(c *cluster, r reloaded) {
			c.t.Helper()
			if !strings.Contains(r.Decision, "was not seen: its REST API does not answer") ||
				!strings.Contains(r.Exec.Stderr, "waiting 35s at most") {
				c.t.Errorf("it does not say what it could not know: %s", r)
			}
		}
		deaf := `patroni: {url: "http://127.0.0.1:1", config: /etc/lab/patroni.yml}`
		c.in("REST API does not answer, patronictl", func(c *cluster) {
			quiet(c)
			before := c.loadTime(m)
			r := c.reload(m, c.yaml(bySetting, deaf), "postgres", "--config-version", "61")
			c.applied(r, "patronictl reload")
			notSeen(c, r)
			c.isVersion(r, 61, "seen", "applied")
			if c.loadTime(m) == before {
				c.t.Error("pg_conf_load_time() has not moved")
			}
		})
		c.in("REST API does not answer, SIGHUP", func(c *cluster) {
			quiet(c)
			before := c.loadTime(m)
			p, err := m.Patroni()
			c.must(err)
			r := c.reloadEnv(m, []string{"PATH=/nowhere"}, c.yaml(bySetting, deaf), "postgres", "--config-version", "61")
			c.applied(r, fmt.Sprintf("SIGHUP to Patroni, process %d", c.inside(p)))
			notSeen(c, r)
			c.isVersion(r, 61, "seen", "applied")
			if c.loadTime(m) == before || !p.Alive() {
				c.t.Error("pg_conf_load_time() has not moved")
			}
		})
		if suite == "trixie" || *full { // it waits for half a minute, whatever the version
			c.in("loop_wait 10 s", func(c *cluster) {
				before := c.reloads(m)
				c.patch(map[string]any{"loop_wait": 10})
				defer c.patch(map[string]any{"loop_wait": 1})
				c.eventually(15*time.Second, "Patroni has read the new loop_wait", func() error {
					if c.reloads(m) == before {
						return errNotYet
					}
					return nil
				})
				r := c.reload(m, c.yaml(), "postgres")
				c.applied(r, "POST /reload")
				c.t.Logf("loop_wait 10 s: applied after %s", r.Exec.Took)
				if !strings.Contains(r.Exec.Stderr, "waiting for Patroni to reload") {
					c.t.Errorf("says nothing while it waits: %s", r)
				}
			})
		}
		c.journalKeepsSecrets(m)
		c.journalKeepsSecrets(guarded)
		c.asBefore()
	})
}

// inside is a process's id as its container counts.
func (c *cluster) inside(p lab.Process) int {
	c.t.Helper()
	pid, err := inside(p)
	c.must(err)
	return pid
}

func inside(p lab.Process) (pid int, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if ids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(ids)
			_, err := fmt.Sscan(fields[len(fields)-1], &pid)
			return pid, err
		}
	}
	return 0, fmt.Errorf("process %d has no NSpid", p.PID)
}
