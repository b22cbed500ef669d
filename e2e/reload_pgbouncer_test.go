package e2e_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/api"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// pooler finds the report of the only pooler, or of the one at an address.
func (c *cluster) pooler(r reloaded, address string) api.PoolerReload {
	c.t.Helper()
	i := slices.IndexFunc(r.Poolers, func(p api.PoolerReload) bool { return strings.Contains(p.Pooler, address) })
	if i < 0 {
		c.t.Fatalf("no result for a pooler at %q: %s", address, r)
	}
	return r.Poolers[i]
}

// isReloaded checks a pooler whose reload went well and was seen.
func (c *cluster) isReloaded(r reloaded, address, how string) api.PoolerReload {
	c.t.Helper()
	p := c.pooler(r, address)
	if p.Done != api.ReloadDone || !p.Verified || !strings.HasPrefix(p.How, how) || len(p.NotApplied) > 0 || p.Error != "" {
		c.t.Errorf("want %s reloaded by %s and verified: %s", address, how, r)
	}
	return p
}

func keys(list []api.SettingDifference) []string {
	var out []string
	for _, d := range list {
		out = append(out, d.Key)
	}
	return out
}

func (c *cluster) setting(p *lab.Pooler, key string) string {
	c.t.Helper()
	config, err := p.Config(c.ctx)
	c.must(err)
	return config[key]
}

// TestReloadPgBouncer: done means that SHOW CONFIG is what the file says, also where PgBouncer answers RELOAD for any file.
func TestReloadPgBouncer(t *testing.T) {
	together(t, func(t *testing.T, suite string) {
		c := startQuiet(t, lab.Options{Suite: suite, Members: 1, Poolers: 2}.Quick())
		m, p1, p2 := c.leader(), c.Poolers()[0], c.Poolers()[1]
		databases := c.Options().PgBouncerDatabases
		const copied = "pgbouncer.ini"
		// p1's file, and the copy of it that the member sees, as the same ConfigMap would be.
		write := func(c *cluster, settings map[string]string) {
			c.t.Helper()
			c.must(p1.WriteConfig(databases, settings))
			c.must(c.write(copied, p1.ConfigText(databases, settings)))
		}
		copyVersion := func(c *cluster, version int) {
			c.t.Helper()
			text, err := os.ReadFile(p1.ConfigFile())
			c.must(err)
			c.must(c.write(copied, fmt.Sprintf("; config-version: %d\n%s", version, text)))
		}
		original := func(c *cluster) {
			c.t.Helper()
			write(c, nil)
			_, _, err := p1.Admin(c.ctx, "RELOAD")
			c.must(err)
			c.asBefore()
		}
		one := poolersYAML("p1", 6432, "pgbouncer-admin-password", "config: /callbacks/"+copied)
		blind := poolersYAML("p1", 6432, "pgbouncer-admin-password")
		byLine := "versions: {pgbouncer: {line: /callbacks/" + copied + "}}"
		c.must(c.write("wrong-password", wrongPassword+"\n"))

		c.in("dry run", func(c *cluster) {
			write(c, map[string]string{"default_pool_size": "91"})
			r := c.reload(m, c.yaml(one), "pgbouncer", "--dry-run")
			c.ends(r, 0, "")
			if p := c.pooler(
				r,
				p1.Address,
			); p.Done != api.ReloadWould || p.How != "RELOAD" ||
				!slices.Equal(keys(p.Changed), []string{"default_pool_size"}) {
				c.t.Errorf("%s", r)
			}
			c.asBefore()
		})
		c.in("a changed setting", func(c *cluster) {
			write(c, map[string]string{"default_pool_size": "91"})
			defer original(c)
			r := c.reload(m, c.yaml(one), "pgbouncer")
			c.ends(r, 0, "")
			if p := c.isReloaded(
				r,
				p1.Address,
				"RELOAD",
			); !slices.Equal(keys(p.Changed), []string{"default_pool_size"}) || p.Changed[0].Running != "100" ||
				p.Changed[0].Want != "91" {
				c.t.Errorf("default_pool_size 100 → 91: %s", r)
			}
			if size := c.setting(p1, "default_pool_size"); size != "91" {
				c.t.Errorf("default_pool_size is %s", size)
			}
		})
		c.in("server and pooler", func(c *cluster) {
			write(c, map[string]string{"default_pool_size": "90"})
			defer original(c)
			r := c.reload(m, c.yaml(one))
			c.applied(r, "POST /reload")
			c.isReloaded(r, p1.Address, "RELOAD")
			if size := c.setting(p1, "default_pool_size"); size != "90" {
				c.t.Errorf("default_pool_size is %s", size)
			}
		})
		c.in("version arrives late", func(c *cluster) {
			write(c, nil)
			defer original(c)
			u := c.begin(m, c.yaml(one, byLine), "pgbouncer", "--config-version", "7", "--timeout", "30s")
			u.says("waiting for configuration version 7")
			// Ours first. The pooler's own comes later: it is reloaded until it has it.
			c.must(c.write(copied, "; config-version: 7\n"+p1.ConfigText(databases, map[string]string{"default_pool_size": "92"})))
			u.says("may not have arrived yet")
			c.must(p1.WriteConfig(databases, map[string]string{"default_pool_size": "92"}))
			r := u.end()
			c.ends(r, 0, "")
			c.isReloaded(r, p1.Address, "RELOAD")
			if v := c.version(r, api.TargetPgBouncer); v.Seen == nil || *v.Seen != 7 || v.Applied == nil || *v.Applied != 7 {
				c.t.Errorf("version 7 is applied: %s", r)
			}
			if size := c.setting(p1, "default_pool_size"); size != "92" {
				c.t.Errorf("default_pool_size is %s", size)
			}
		})
		c.in("version never arrives", func(c *cluster) {
			write(c, map[string]string{"default_pool_size": "93"})
			defer original(c)
			copyVersion(c, 7)
			r := c.reload(m, c.yaml(one, byLine), "pgbouncer", "--config-version", "8", "--timeout", "1s")
			c.ends(r, 1, api.ProblemVersionTimeout)
			if v := c.version(r, api.TargetPgBouncer); v.Seen == nil || *v.Seen != 7 || len(r.Poolers) > 0 {
				c.t.Errorf("version 7 was seen last: %s", r)
			}
			c.asBefore()
		})
		c.in("its file is not seen", func(c *cluster) {
			write(c, map[string]string{"default_pool_size": "94"})
			defer original(c)
			r := c.reload(m, c.yaml(blind), "pgbouncer")
			answers := suite != "trixie" // since 1.25 RELOAD says whether the file is any good
			if answers {
				c.ends(r, 0, "")
			} else {
				c.ends(r, 1, api.ProblemNotVerified, "set poolers[].config")
			}
			if p := c.pooler(
				r,
				p1.Address,
			); p.Done != api.ReloadDone || p.Verified != answers || (p.NotVerified == "") != answers ||
				!slices.Equal(keys(p.Changed), []string{"default_pool_size"}) {
				c.t.Errorf("%s", r)
			}
		})
		c.in("another file than its own", func(c *cluster) {
			c.must(p1.WriteConfig(databases, map[string]string{"default_pool_size": "94"}))
			text := p1.ConfigText(databases, map[string]string{"default_pool_size": "95"})
			c.must(c.write(copied, text))
			defer original(c)
			line := slices.IndexFunc(
				strings.Split(text, "\n"),
				func(s string) bool { return strings.HasPrefix(s, "default_pool_size") },
			) + 1
			r := c.reload(m, c.yaml(one), "pgbouncer")
			c.ends(r, 1, api.ProblemNotApplied, fmt.Sprintf("/callbacks/%s:%d: default_pool_size", copied, line))
			want := api.SettingDifference{File: "/callbacks/" + copied, Line: line, Key: "default_pool_size", Want: "95", Running: "94"}
			if p := c.pooler(
				r,
				p1.Address,
			); !slices.Equal(p.NotApplied, []api.SettingDifference{want}) || p.Verified ||
				p.Done != api.ReloadFailed {
				c.t.Errorf("want %+v: %s", want, r)
			}
			if size := c.setting(p1, "default_pool_size"); size != "94" {
				c.t.Errorf("default_pool_size is %s", size)
			}
		})
		c.in("syntax error", func(c *cluster) {
			write(c, map[string]string{"default_pool_size": "95"})
			defer original(c)
			text, err := os.ReadFile(p1.ConfigFile())
			c.must(err)
			line := strings.Count(string(text), "\n") + 1
			c.must(os.WriteFile(p1.ConfigFile(), append(text, "verbose\n"...), 0o644))
			copyVersion(c, 9) // one line more
			r := c.reload(m, c.yaml(one), "pgbouncer")
			c.ends(r, 1, api.ProblemInvalidFile, fmt.Sprintf("/callbacks/%s:%d", copied, line+1))
			if p := c.pooler(r, p1.Address); p.Done != api.ReloadNot || p.Verified || p.Error == "" {
				c.t.Errorf("%s", r)
			}
			c.asBefore() // nothing of it has taken effect
		})
		for _, bad := range []struct{ name, key, value string }{
			{"bad value", "default_pool_size", "many"},
			{"unknown key", "default_pool_sise", "5"},
		} {
			c.in(bad.name, func(c *cluster) {
				write(c, map[string]string{bad.key: bad.value})
				defer original(c)
				text, err := os.ReadFile(p1.ConfigFile())
				c.must(err)
				line := slices.IndexFunc(
					strings.Split(string(text), "\n"),
					func(s string) bool { return strings.HasPrefix(s, bad.key) },
				) + 1
				r := c.reload(m, c.yaml(one), "pgbouncer")
				c.ends(r, 1, api.ProblemInvalidFile, fmt.Sprintf("/callbacks/%s:%d", copied, line), bad.key)
				if p := c.pooler(r, p1.Address); p.Verified || p.Error == "" {
					c.t.Errorf("%s", r)
				}
				// 1.24 answers RELOAD for such a file too. Where the file is not seen, that cannot be told.
				_, tag, err := p1.Admin(c.ctx, "RELOAD")
				c.t.Logf("RELOAD in the console: %s, %v", tag, err)
				told := c.reload(m, c.yaml(blind), "pgbouncer")
				switch p := c.pooler(told, p1.Address); {
				case err != nil && (told.Code != 1 || told.Problem != api.ProblemInvalidFile):
					c.t.Errorf("PgBouncer has said %v: %s", err, told)
				case err == nil && (told.Code != 1 || told.Problem != api.ProblemNotVerified || p.Verified || p.NotVerified == ""):
					c.t.Errorf("want it not verified: %s", told)
				}
			})
		}
		c.in("a restart is needed", func(c *cluster) {
			write(c, map[string]string{"listen_port": "6499", "default_pool_size": "96"})
			defer original(c)
			r := c.reload(m, c.yaml(one), "pgbouncer")
			c.ends(r, 0, "")
			if p := c.isReloaded(
				r,
				p1.Address,
				"RELOAD",
			); !slices.Equal(keys(p.NeedsRestart), []string{"listen_port"}) || p.NeedsRestart[0].Want != "6499" ||
				p.NeedsRestart[0].Line == 0 {
				c.t.Errorf("listen_port needs a restart: %s", r)
			}
			if size := c.setting(p1, "default_pool_size"); size != "96" {
				c.t.Errorf("default_pool_size is %s", size)
			}
		})
		c.in("two poolers, one down", func(c *cluster) {
			write(c, map[string]string{"default_pool_size": "97"})
			p2.Kill()
			defer func() {
				c.must(p2.Start())
				c.healthy()
				original(c)
			}()
			r := c.reload(m, c.yaml(poolersYAML("pgbouncers", 6432, "pgbouncer-admin-password", "config: /callbacks/"+copied)), "pgbouncer")
			c.ends(r, 1, api.ProblemUnreachable)
			c.isReloaded(r, p1.Address, "RELOAD")
			if p := c.pooler(r, p2.Address); p.Done != api.ReloadNot || p.Error == "" || len(r.Poolers) != 2 {
				c.t.Errorf("%s is down: %s", p2, r)
			}
			if size := c.setting(p1, "default_pool_size"); size != "97" {
				c.t.Errorf("default_pool_size is %s", size)
			}
		})
		c.colocated(m)
		c.journalKeepsSecrets(m)
		c.asBefore()
	})
}

// colocated are the cases with a PgBouncer in the member's own container, started by hand as the same user.
func (c *cluster) colocated(m *lab.Member) {
	const port, pidfile = 7432, "/tmp/own/pgbouncer.pid"
	c.must(c.write("own-users", fmt.Sprintf("%q %q\n", "pgbouncer_admin", c.AdminPassword)))
	write := func(c *cluster, poolSize string) {
		c.t.Helper()
		c.must(c.write("own.ini", fmt.Sprintf(`[databases]
* = host=%s port=5432
[pgbouncer]
listen_addr = %s
listen_port = %d
unix_socket_dir = /tmp/own
pidfile = %s
logfile = /tmp/own/log
auth_type = scram-sha-256
auth_file = /callbacks/own-users
admin_users = pgbouncer_admin
default_pool_size = %s
`, m.Address, m.Address, port, pidfile, poolSize)))
	}
	// The test's own look, with the right password.
	poolSize := func(c *cluster) string {
		c.t.Helper()
		ctx, cancel := context.WithTimeout(c.ctx, 5*time.Second)
		defer cancel()
		conn, err := pgconn.Connect(
			ctx,
			fmt.Sprintf("postgres://pgbouncer_admin:%s@%s:%d/pgbouncer?sslmode=disable", c.AdminPassword, m.Address, port),
		)
		c.must(err)
		defer conn.Close(ctx)
		results, err := conn.Exec(ctx, "SHOW CONFIG").ReadAll()
		c.must(err)
		for _, row := range results[0].Rows {
			if string(row[0]) == "default_pool_size" {
				return string(row[1])
			}
		}
		c.t.Fatal("no default_pool_size")
		return ""
	}
	shell := func(c *cluster, script string) {
		c.t.Helper()
		r, err := c.exec(m, "sh", "-c", script)
		c.must(err)
		if r.ExitCode != 0 {
			c.t.Fatalf("%s: exit code %d: %s%s", script, r.ExitCode, r.Stdout, r.Stderr)
		}
	}
	find := func(c *cluster, command string) lab.Process {
		c.t.Helper()
		var p lab.Process
		c.eventually(5*time.Second, command+" runs", func() error {
			var ok bool
			if p, ok = m.FindProcess(command); !ok || p.Cmdline() != command { // not yet, it is still the shell's or env's
				return errNotYet
			}
			return nil
		})
		return p
	}
	write(c, "20")
	shell(c, "mkdir -p /tmp/own && pgbouncer -q -d /callbacks/own.ini")
	var process lab.Process
	defer func() { _ = process.Kill(syscall.SIGKILL) }()
	// It forks to become a daemon: the one that stays is the one in its pidfile.
	c.eventually(5*time.Second, "its console answers", func() error {
		conn, err := pgconn.Connect(
			c.ctx,
			fmt.Sprintf("postgres://pgbouncer_admin:%s@%s:%d/pgbouncer?sslmode=disable", c.AdminPassword, m.Address, port),
		)
		if err != nil {
			return err
		}
		conn.Close(c.ctx)
		r, err := c.exec(m, "cat", pidfile)
		if err != nil {
			return err
		}
		p, ok := m.FindProcess("/callbacks/own.ini")
		if pid, err := inside(p); !ok || err != nil || fmt.Sprint(pid) != strings.TrimSpace(r.Stdout) {
			return fmt.Errorf("%s says %q, found is %d: %v", pidfile, r.Stdout, pid, err)
		}
		process = p
		return nil
	})

	signalled := func(c *cluster, size, config string) {
		c.t.Helper()
		write(c, size)
		r := c.reload(m, config, "pgbouncer")
		c.ends(r, 0, "")
		c.isReloaded(r, "", fmt.Sprintf("SIGHUP to process %d", c.inside(process)))
		if got := poolSize(c); got != size {
			c.t.Errorf("default_pool_size is %s, the file says %s", got, size)
		}
	}
	c.in("same container", func(c *cluster) {
		write(c, "21")
		r := c.reload(m, c.yaml(poolersYAML(m.Name, port, "pgbouncer-admin-password")), "pgbouncer")
		c.ends(r, 0, "")
		if p := c.isReloaded(r, "", "RELOAD"); p.File != "/callbacks/own.ini" || poolSize(c) != "21" {
			c.t.Errorf("its file is the one it was started with: %s", r)
		}
	})
	c.in("console refused, pidfile", func(c *cluster) {
		signalled(c, "22", c.yaml(poolersYAML(m.Name, port, "wrong-password", "pidfile: "+pidfile)))
	})
	c.in("console refused, only process", func(c *cluster) {
		signalled(c, "23", c.yaml(poolersYAML(m.Name, port, "wrong-password")))
	})
	c.in("console refused, and the only process is another pooler's", func(c *cluster) {
		write(c, "77")
		defer write(c, "23")
		r := c.reload(m, c.yaml(poolersYAML("p1", 6432, "wrong-password")), "pgbouncer")
		c.ends(r, 1, api.ProblemUnreachable, "listens on port 7432, not 6432: it was not signalled")
		if size := poolSize(c); size != "23" {
			c.t.Errorf("default_pool_size is %s: another pooler was reloaded", size)
		}
	})
	c.in("a logfile that cannot be opened", func(c *cluster) {
		text, err := c.exec(m, "cat", "/callbacks/own.ini")
		c.must(err)
		c.must(c.write("own.ini", strings.Replace(text.Stdout, "/tmp/own/log", "/proc/own.log", 1)))
		defer write(c, "23")
		r := c.reload(m, c.yaml(poolersYAML(m.Name, port, "pgbouncer-admin-password", "config: /callbacks/own.ini")), "pgbouncer")
		c.ends(r, 1, api.ProblemInvalidFile, "logfile", "PgBouncer would end")
		if size := poolSize(c); size != "23" {
			c.t.Errorf("default_pool_size is %s", size)
		}
	})
	c.in("no console configured", func(c *cluster) {
		signalled(c, "24", c.yaml("poolers:\n  - pidfile: "+pidfile))
	})
	c.in("console refused, bad value", func(c *cluster) {
		write(c, "plenty")
		r := c.reload(m, c.yaml(poolersYAML(m.Name, port, "wrong-password", "pidfile: "+pidfile)), "pgbouncer")
		c.ends(r, 1, api.ProblemInvalidFile, "/callbacks/own.ini:12: default_pool_size")
		// A SIGHUP would have put it and all that follows to the defaults.
		if size := poolSize(c); size != "24" {
			c.t.Errorf("default_pool_size is %s", size)
		}
	})
	write(c, "25")
	for _, other := range []struct{ name, command, says string }{
		{"stale pidfile", "sleep 6001", "not a pgbouncer process"},
		{"stale pidfile, another program of that name", "/tmp/own/bin/pgbouncer 6002", "no handler"},
	} {
		c.in(other.name, func(c *cluster) {
			// Where the tests were started under nohup, it would ignore SIGHUP, and its living on would show nothing.
			shell(
				c,
				"mkdir -p /tmp/own/bin && cp /bin/sleep /tmp/own/bin/pgbouncer && env --default-signal=HUP "+other.command+" "+
					">/dev/null 2>&1 & echo $! >/tmp/own/stale.pid",
			)
			victim := find(c, other.command)
			defer func() { _ = victim.Kill(syscall.SIGKILL) }()
			if ignoresHUP(c, victim) {
				c.t.Fatalf("process %d ignores SIGHUP", victim.PID)
			}
			c.must(c.write("stale.pid", fmt.Sprintln(c.inside(victim))))
			r := c.reload(
				m,
				c.yaml(poolersYAML(m.Name, port, "wrong-password", "pidfile: /callbacks/stale.pid", "config: /callbacks/own.ini")),
				"pgbouncer",
			)
			c.ends(r, 1, api.ProblemUnreachable, other.says)
			if p := c.pooler(r, ""); p.Done == api.ReloadDone || p.Done == api.ReloadSignaled || p.Verified {
				c.t.Errorf("%s", r)
			}
			// It has no handler: one SIGHUP and it would be gone.
			if !victim.Alive() {
				c.t.Errorf("the process was signalled: %s", r)
			}
			if size := poolSize(c); size != "24" {
				c.t.Errorf("default_pool_size is %s: another process was signalled in its place", size)
			}
		})
	}
}

// ignoresHUP reads SigIgn.
func ignoresHUP(c *cluster, p lab.Process) bool {
	c.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	c.must(err)
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "SigIgn:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			c.must(err)
			return mask>>(uint(syscall.SIGHUP)-1)&1 == 1
		}
	}
	c.t.Fatalf("process %d has no SigIgn", p.PID)
	return false
}

// reloadsDuringPauses counts by a pooler's log.
func (c *cluster) reloadsDuringPauses(p *lab.Pooler) (pauses, reloads int) {
	c.t.Helper()
	log, err := os.ReadFile(p.LogFile())
	c.must(err)
	paused := false
	for line := range strings.Lines(string(log)) {
		switch {
		case strings.Contains(line, "PAUSE command issued"):
			paused = true
			pauses++
		case strings.Contains(line, "RESUME command issued"):
			paused = false
		case strings.Contains(line, "RELOAD command issued") && paused:
			reloads++
		}
	}
	return pauses, reloads
}

// TestReloadDuringHandover: RELOAD would take away what a pause has set. It waits, and costs no client anything.
func TestReloadDuringHandover(t *testing.T) {
	togetherOn(t, "trixie", func(t *testing.T, suite string) {
		c := startQuiet(t, lab.Options{Suite: suite, Members: 2}.Quick())
		p := c.Pooler()
		databases := c.Options().PgBouncerDatabases
		// the copy of its file that the members see
		write := func(settings map[string]string) {
			c.must(p.WriteConfig(databases, settings))
			c.must(c.write("pgbouncer.ini", p.ConfigText(databases, settings)))
		}
		write(nil)
		config := c.yaml(poolersYAML("pgbouncers", 6432, "pgbouncer-admin-password", "config: /callbacks/pgbouncer.ini"))
		before := c.setting(p, "server_login_retry")
		replicas, err := c.Replicas(c.ctx)
		c.must(err)
		leader, other := c.leader(), replicas[0]

		c.in("pause by hand", func(c *cluster) {
			write(map[string]string{"default_pool_size": "98"})
			if r := c.run(leader, "pause", "--lease", "10s"); r.ExitCode != 0 {
				c.t.Fatalf("pause: %s", r.Stderr)
			}
			mark := c.setting(p, "server_login_retry")
			r := c.reload(other, config, "pgbouncer", "--timeout", "1s")
			c.ends(r, 1, api.ProblemHandover)
			paused, err := p.Paused(c.ctx)
			c.must(err)
			if now := c.setting(
				p,
				"server_login_retry",
			); !paused || mark == before || now != mark ||
				c.setting(p, "default_pool_size") != "100" {
				c.t.Errorf("paused %v, server_login_retry %s, with the pause %s, before %s: %s", paused, now, mark, before, r)
			}
			if r.Exec.Took < time.Second || r.Exec.Took > 3*time.Second {
				c.t.Errorf("%s", r)
			}

			u := c.begin(other, config, "pgbouncer")
			u.says("waiting for the end of a handover")
			looks := 0
			for u.running() {
				now := c.setting(p, "server_login_retry")
				// The pause ends before its mark is taken away.
				if paused, err := p.Paused(c.ctx); err == nil && paused {
					looks++
					if now != mark {
						c.t.Fatalf("server_login_retry is %s during the pause, it was %s", now, mark)
					}
				}
			}
			r = u.end()
			c.ends(r, 0, "")
			c.isReloaded(r, p.Address, "RELOAD")
			if size := c.setting(p, "default_pool_size"); size != "98" || looks < 5 {
				c.t.Errorf("default_pool_size is %s; looked %d times during the pause: %s", size, looks, r)
			}
			write(nil)
			r = c.reload(other, config, "pgbouncer")
			c.ends(r, 0, "")
			c.asBefore()
		})

		c.in("switchover under load", func(c *cluster) {
			l := c.load()
			stop := make(chan struct{})
			var loops sync.WaitGroup
			var results [3][]lab.ExecResult
			for i := range results {
				loops.Go(func() {
					for {
						r, err := other.Exec(c.ctx, nil, reloadCommand(config, []string{"pgbouncer"})...)
						if err != nil {
							r.ExitCode, r.Stderr = -1, err.Error()
						}
						results[i] = append(results[i], r)
						select {
						case <-stop:
							return
						default:
						}
					}
				})
			}
			for range rounds(2, 5) {
				c.switchover()
				l.flowing(20)
				c.healthy()
			}
			close(stop)
			loops.Wait()
			c.noErrors(l.stop())
			c.asBefore()
			all, waited := slices.Concat(results[:]...), 0
			for _, exec := range all {
				r := c.parse(exec)
				c.ends(r, 0, "")
				c.isReloaded(r, p.Address, "RELOAD")
				if strings.Contains(exec.Stderr, "waiting for the end of a handover") {
					waited++
				}
			}
			// By PgBouncer's own log. A PAUSE may come between the last look and the RELOAD; then nothing may follow that one.
			pauses, during := c.reloadsDuringPauses(p)
			if pauses < rounds(2, 5) || waited == 0 || during > pauses {
				c.t.Errorf(
					"%d reloads of %d waited for the end of a handover; in %d pauses PgBouncer has reloaded %d times",
					waited,
					len(all),
					pauses,
					during,
				)
			}
			c.t.Logf("%d reloads, %d of them waited for the end of a handover", len(all), waited)
		})
		c.journalKeepsSecrets(other)
	})
}
