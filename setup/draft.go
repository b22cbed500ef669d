package setup

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/peer"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

// pooler is an entry of poolers, and what is said of it.
type pooler struct {
	comment  string
	dsn      string
	password string // whose password is needed; "" where none is
	pidfile  string
	config   string
}

// draft is a configuration that is being written.
type draft struct {
	patroni   string // Patroni's own file or folder; "" where it was not found
	url       string // of the REST API, where that is not known from the file
	postgres  string
	poolers   []pooler
	budget    time.Duration // 0: the default
	stateDir  string
	answered  []string // comments: what Patroni and the poolers say
	generated time.Time
}

// plain is what stands in a connection string and in YAML as it is.
var plain = regexp.MustCompile(`^[A-Za-z0-9_./:@%+-]{1,255}$`)

// scalar is a text as a value of YAML, in which no ${NAME} is replaced.
func scalar(text string) string {
	text = strings.ReplaceAll(text, "${", "$${")
	if plain.MatchString(text) && !strings.HasSuffix(text, ":") && strings.ContainsAny(text, "/.") {
		return text
	}
	return strconv.Quote(text) // what YAML's double quotes have beside Go's is not written: the texts are printable
}

// text is the file.
func (d *draft) text() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("# Configuration of pgbaton, written by \"pgbaton init\" on %s. pgbaton(1) and docs/configuration.md have all keys;",
		d.generated.Format(time.DateOnly))
	say("# \"pgbaton check\", run as Patroni's user, says what is missing. ${NAME} is replaced by the environment variable, so that all")
	say("# members can use the same file. Passwords do not belong here: name a password_file or a pgpass file of Patroni's user.")
	for _, line := range d.answered {
		say("# %s", line)
	}
	say("\npatroni:")
	if d.patroni != "" {
		say("  # The REST API with its credentials, and the local server, are taken from Patroni's own configuration.")
		say("  config: %s", scalar(d.patroni))
	} else {
		say("  # This member's REST API.")
		say("  url: %s", scalar(d.url))
		say("  # Or all of it, and the local server, from Patroni's own file:")
		say("  # config: /etc/patroni/config.yml")
	}
	if d.postgres != "" {
		say("\n# This member's server, over its Unix socket.")
		say("postgres: %s", scalar(d.postgres))
	}
	say("\n# Every PgBouncer in front of the cluster: one entry each, or a name that resolves to all of them.")
	if len(d.poolers) == 0 {
		say("# poolers:")
		say("#   - dsn: postgres://pgbouncer_admin@pgbouncers:6432/pgbouncer")
		say("#     password_file: pgbouncer-admin-password")
	} else {
		say("poolers:")
	}
	for _, p := range d.poolers {
		if p.comment != "" {
			say("  # %s", p.comment)
		}
		say("  - dsn: %s", scalar(p.dsn))
		if p.password != "" {
			say("    # password_file: %s    # of %s; it stands beside this file", passwordFile, p.password)
		}
		if p.pidfile != "" {
			say("    pidfile: %s    # signals, where the console does not answer", scalar(p.pidfile))
		}
		if p.config != "" {
			say("    config: %s    # what it runs is compared with it after a reload", scalar(p.config))
		}
	}
	say("\n# The longest that a stop is delayed (at most Patroni's ttl - 5 s), and that a pause lasts.")
	if d.budget > 0 {
		say("pause:")
		say("  budget: %s", d.budget)
		say("  # lease: 30s")
	} else {
		say("# pause: {budget: 15s, lease: 30s}")
	}
	say("\n# Leases, locks and the journal. It belongs to Patroni's user, with mode 0700.")
	say("state_dir: %s", scalar(d.stateDir))
	return b.String()
}

const passwordFile = "pgbouncer-admin-password"

// unusable says why a file gives no entry.
type unusable struct{ text string }

func (e *unusable) Error() string { return e.text }

var userName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,63}$`)

// poolerOf is the entry for a PgBouncer on this machine. uid is who will ask it: on the Unix socket PgBouncer takes a process of its own
// user for an administrator called pgbouncer, without a password (1.18 to 1.26).
func poolerOf(path string, uid int) (pooler, []string, error) {
	ini, err := pgbini.ReadFile(path, "")
	if err != nil {
		return pooler{}, nil, err
	}
	port, ok := ini.Port()
	if !ok || port == 0 {
		return pooler{}, nil, &unusable{path + ": listen_port is no port"}
	}
	p := pooler{config: path, comment: targets(ini)}
	setting := func(key string) string {
		value, _, _, _ := ini.Setting(key)
		return value
	}
	admin := ""
	for name := range strings.SplitSeq(setting("admin_users"), ",") {
		if name = strings.TrimSpace(name); userName.MatchString(name) {
			admin = name
			break
		}
	}
	if pidfile := setting("pidfile"); filepath.IsAbs(pidfile) && plain.MatchString(pidfile) {
		p.pidfile = filepath.Clean(pidfile)
	}
	dir := ini.SocketDir()
	socket := filepath.Join(dir, fmt.Sprintf(".s.PGSQL.%d", port))
	info, err := os.Stat(socket)
	onSocket := filepath.IsAbs(dir) && plain.MatchString(dir) && err == nil && info.Mode().Type() == os.ModeSocket
	host := hostOf(setting("listen_addr"))
	switch {
	case onSocket && ownerOf(info) == uid:
		p.dsn = fmt.Sprintf("host=%s port=%d user=pgbouncer dbname=pgbouncer", dir, port)
		return p, nil, nil
	case admin == "":
		return pooler{}, nil, &unusable{path + ": admin_users names nobody, and this PgBouncer does not run as Patroni's user: add a user"}
	case onSocket:
		p.dsn = fmt.Sprintf("host=%s port=%d user=%s dbname=pgbouncer", dir, port, admin)
	case host != "":
		p.dsn = fmt.Sprintf("postgres://%s@%s/pgbouncer", admin, net.JoinHostPort(host, strconv.Itoa(int(port))))
	default:
		return pooler{}, nil, &unusable{path + ": neither listen_addr nor a Unix socket leads to this PgBouncer"}
	}
	p.password = admin
	return p, []string{passwordTodo(admin)}, nil
}

func passwordTodo(user string) string {
	return fmt.Sprintf("write the password of %s into %s beside the configuration file, readable for Patroni's user only, and take the # "+
		"from password_file", user, passwordFile)
}

// namedPooler is the entry for a console that a person has named. Over TCP it asks for a password; where libpq's own places have none for
// it, that is left to do.
func namedPooler(dsn string) (pooler, []string) {
	p := pooler{dsn: dsn}
	// What is wrong with it is told when the whole file is read.
	c, err := pgconn.ParseConfig(dsn)
	if err != nil || strings.HasPrefix(c.Host, "/") || c.Password != "" || !userName.MatchString(c.User) {
		return p, nil
	}
	p.password = c.User
	return p, []string{passwordTodo(c.User)}
}

// targets is where a PgBouncer leads, in a few words.
func targets(ini *pgbini.File) string {
	const most = 5
	var words []string
	for i, t := range ini.Databases() {
		if i == most {
			words = append(words, "…")
			break
		}
		host := t.Host
		if host == "" || strings.HasPrefix(host, "/") {
			host = "the server of its own machine"
		}
		words = append(words, peer.Text(t.Name)+" leads to "+peer.Text(host))
	}
	if len(words) == 0 {
		return "No database is in its file."
	}
	return "By its file " + strings.Join(words, ", ") + "."
}

// hostOf is an address to connect to from this machine, of listen_addr.
func hostOf(listen string) string {
	for address := range strings.SplitSeq(listen, ",") {
		switch address = strings.TrimSpace(address); address {
		case "":
		case "*", "0.0.0.0":
			return "127.0.0.1"
		case "::":
			return "::1"
		default:
			if plain.MatchString(address) {
				return address
			}
		}
	}
	return ""
}

func ownerOf(info os.FileInfo) int {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid)
	}
	return -1
}

// create writes a file that was not there, whole or not at all: the error is [os.ErrExist] where there is one, whoever made it meanwhile.
func create(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".pgbaton-*")
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}()
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	// There are no passwords in it, and it is read as Patroni's user, who need not be who writes it.
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := unix.Link(f.Name(), path); err != nil { // unlike a rename it replaces nothing
		return &os.PathError{Op: "create", Path: path, Err: err}
	}
	return file.SyncDir(filepath.Dir(path))
}
