package check

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// settings reads an ini file's keys; sections do not matter to us.
func settings(ini string) map[string]string {
	s := map[string]string{}
	for line := range strings.Lines(ini) {
		line = strings.TrimSpace(line)
		if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, ";") {
			s[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return s
}

func TestPgBouncerSettings(t *testing.T) {
	for _, name := range clusters {
		t.Run(name, func(t *testing.T) {
			b := build(t, name)
			p, c := b.pooler(t)
			files := b.configMaps["pgbouncer"].Data
			ini := settings(files["pgbouncer.ini"])
			if ini["pool_mode"] != "transaction" {
				t.Errorf("pool_mode = %s", ini["pool_mode"])
			}
			if ini["listen_port"] != strconv.Itoa(int(c.Ports[0].ContainerPort)) {
				t.Errorf("listen_port = %s, the container says %d", ini["listen_port"], c.Ports[0].ContainerPort)
			}
			for _, key := range []string{"server_login_retry", "query_wait_timeout", "client_login_timeout", "auth_query"} {
				if value, ok := ini[key]; ok {
					t.Errorf("%s = %s: leave it at its default", key, value)
				}
			}
			for _, key := range []string{"logfile", "pidfile"} {
				if value, ok := ini[key]; ok {
					t.Errorf("%s = %s: the root file system is read-only", key, value)
				}
			}
			include := ""
			for line := range strings.Lines(files["pgbouncer.ini"]) {
				if rest, ok := strings.CutPrefix(line, "%include "); ok {
					include = strings.TrimSpace(rest)
				}
			}
			for _, file := range []string{include, ini["auth_file"], c.Command[len(c.Command)-1]} {
				if present, _ := b.provides(p, c, file); !present {
					t.Errorf("%q will not be there", file)
				}
			}
			target := settings(files[path.Base(include)])["*"]
			host, port, _ := strings.Cut(strings.TrimPrefix(target, "host="), " port=")
			if !b.isPrimaryService(host) || port != "5432" {
				t.Errorf("databases.ini leads to %q, which is not the primary's Service", target)
			}
		})
	}
}

// TestPgBouncerAccepts starts real PgBouncers with the files: those of the lab, if it is there.
func TestPgBouncerAccepts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for chroot")
	}
	lab := os.Getenv("PGBATON_LAB_DIR")
	if lab == "" {
		lab = "/var/lib/pgbaton-lab"
	}
	b := build(t, plain)
	for _, suite := range []string{"trixie", "sid"} {
		t.Run(suite, func(t *testing.T) {
			root := filepath.Join(lab, suite)
			if _, err := os.Stat(filepath.Join(root, ".pgbaton-lab")); err != nil {
				t.Skip("no lab: scripts/lab-root.sh " + suite)
			}
			dir, err := os.MkdirTemp(filepath.Join(root, "tmp"), "pgbaton-check-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			inside := "/tmp/" + filepath.Base(dir)
			files := map[string]string{"userlist.txt": string(b.secrets["pgbouncer-users"].Data["userlist.txt"])}
			for name, text := range b.configMaps["pgbouncer"].Data {
				text = strings.ReplaceAll(text, "/etc/pgbouncer-users/", inside+"/")
				text = strings.ReplaceAll(text, "/etc/pgbouncer/", inside+"/")
				// Any free port of this machine would do for what is tested here.
				text = strings.ReplaceAll(text, "listen_addr = *", "listen_addr = 127.43.2.8")
				files[name] = text
			}
			for name, text := range files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o444); err != nil {
					t.Fatal(err)
				}
			}
			startsUp(t, root, inside+"/pgbouncer.ini")
		})
	}
}

func startsUp(t *testing.T, root, ini string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/usr/sbin/pgbouncer", ini)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot:     root,
		Credential: &syscall.Credential{Uid: 65534, Gid: 65534},
		Pdeathsig:  syscall.SIGKILL,
	}
	cmd.Dir = "/"
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	up := false
	for lines := bufio.NewScanner(stderr); !up && lines.Scan(); {
		line := lines.Text()
		up = strings.Contains(line, "process up")
		if strings.Contains(line, "WARNING") || strings.Contains(line, "ERROR") || strings.Contains(line, "FATAL") {
			t.Error(line)
		}
	}
	if !up {
		t.Error("PgBouncer did not come up")
	}
}
