package e2e_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// layout is how an installer sets up the poolers of the nodes, and the page of the documentation for it, whose configuration of pgbaton and
// HAProxy are what runs here.
type layout struct {
	page      string
	files     map[string]string // in /etc/pgbouncer
	databases string            // of pgbouncer.ini
	settings  map[string]string // of pgbouncer.ini
	file      string            // that has the entries
}

// pigsty is as its roles/pgsql has it: entries in a file of their own, one folder for all sockets, log-ins by rules.
var pigsty = layout{
	page: "pigsty.md",
	files: map[string]string{
		"database.txt": "# the databases of this node\npostgres                    = host=/var/run/postgresql pool_size=40\n" +
			"readers                     = host=/var/run/postgresql dbname=postgres\n",
		"useropts.txt": "postgres                    = max_user_connections=90\n",
		"pgb_hba.conf": "local all postgres peer\nhost all all 127.0.0.0/8 scram-sha-256\nlocal all all scram-sha-256\n",
	},
	databases: "%include /etc/pgbouncer/database.txt\n\n[users]\n%include /etc/pgbouncer/useropts.txt",
	settings: map[string]string{"auth_type": "hba", "auth_hba_file": "/etc/pgbouncer/pgb_hba.conf", "unix_socket_dir": "/var/run/postgresql",
		"pidfile": "/var/run/postgresql/pgbouncer.pid", "application_name_add_host": "0", "server_check_query": "",
		"server_reset_query": "DISCARD ALL", "max_db_connections": "100", "server_lifetime": "600"},
	file: "database.txt",
}

// autobase is as its roles have it: entries in pgbouncer.ini itself, "*" among them, passwords asked for at the server.
var autobase = layout{
	page: "autobase.md",
	databases: "postgres = host=/var/run/postgresql port=5432 dbname=postgres \n\n" +
		"* = host=/var/run/postgresql port=5432",
	settings: map[string]string{"unix_socket_dir": "/var/run/pgbouncer", "so_reuseport": "1", "server_check_query": "",
		"server_reset_query": "DISCARD ALL", "application_name_add_host": "0", "query_wait_timeout": "120", "listen_backlog": "4096"},
	file: "pgbouncer.ini",
}

// TestPigsty and TestAutobase are switchovers with the poolers, the HAProxy and the pgbaton.yaml of those pages.
func TestPigsty(t *testing.T) {
	togetherOn(t, "sid", func(t *testing.T, suite string) { pigsty.run(t, suite) })
}

func TestAutobase(t *testing.T) {
	togetherOn(t, "trixie", func(t *testing.T, suite string) { autobase.run(t, suite) })
}

func (y layout) run(t *testing.T, suite string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", y.page))
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	c := newCluster(t)
	opts := lab.Options{Suite: suite, Beside: true, BesideFiles: y.files, PgBouncerDatabases: y.databases, PgBouncer: y.settings,
		PgbenchRate: 50, PgbenchScale: 1, Front: func(l *lab.Lab) string { return frontOf(l, page, 6432) }}.Quick()
	made := c.makeWith(opts, func() []string { return []string{c.poolersOf(page), serveSection} })
	t.Cleanup(func() { c.end(made) })
	c.must(c.write("tokens", tokenFile))
	c.serveEverywhere()
	c.ready()
	stalls, result := c.handovers(rounds(2, 5), func() {
		h := c.switchover()
		c.eventually(10*time.Second, "the old leader's pooler leads to "+h.To.Name, func() error {
			entries, err := os.ReadFile(filepath.Join(filepath.Dir(c.poolerOf(h.From).ConfigFile()), y.file))
			if err == nil && !strings.Contains(string(entries), h.To.Address) {
				err = errNotYet
			}
			return err
		})
	})
	c.noErrors(result)
	t.Logf("%s: stalls %v", y.page, stalls)
}

// poolersOf is the section of the poolers of a page's pgbaton.yaml: with the lab's addresses, database and administrator.
func (c *cluster) poolersOf(page string) string {
	c.t.Helper()
	section := regexp.MustCompile(`(?ms)^poolers:\n.*?^(serve:)`).FindString(page)
	if section == "" {
		c.t.Fatal("the page has no poolers")
	}
	var hosts []string
	for _, p := range c.Poolers() {
		hosts = append(hosts, p.Address)
	}
	section = strings.TrimSuffix(section, "serve:")
	section = strings.ReplaceAll(section, "10.0.0.11,10.0.0.12,10.0.0.13", strings.Join(hosts, ","))
	section = strings.ReplaceAll(section, "[app]", "[postgres]")
	section = regexp.MustCompile(`user=(dbuser_dba|postgres) `).ReplaceAllString(section, "user=pgbouncer_admin ")
	return regexp.MustCompile(`password_file: \S+`).ReplaceAllString(section, "password_file: pgbouncer-admin-password")
}
