package pgb_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

const loadFailed = "config file loading failed"

// reloader is a real pooler whose file is changed and reloaded.
type reloader struct {
	*rig
	p    *pgb.Pooler
	base string // the file that it was started with
	root string
}

func newReloader(t *testing.T, r *rig) *reloader {
	t.Helper()
	base, err := r.Config()
	if err != nil {
		t.Fatal(err)
	}
	return &reloader{rig: r, p: r.pooler(t), base: base, root: fmt.Sprintf("/proc/%d/root", r.PID)}
}

func (r *reloader) write(t *testing.T, config string) {
	t.Helper()
	if err := r.RewriteConfig(config); err != nil {
		t.Fatal(err)
	}
}

// reload says whether PgBouncer took the file, as its log tells in all versions, and checks what it answers.
func (r *reloader) reload(t *testing.T) (took bool) {
	t.Helper()
	before := strings.Count(r.log(t), loadFailed)
	err := r.p.Reload(soon(t))
	took = strings.Count(r.log(t), loadFailed) == before
	var refused *pgb.ServerError
	switch {
	case r.Suite != single.SuiteSid:
		if err != nil {
			t.Errorf("RELOAD: %v", err)
		}
	case !took:
		if !errors.As(err, &refused) || refused.Code != "F0000" || refused.Message != "RELOAD failed, see logs for additional details" {
			t.Errorf("RELOAD of a bad file: %v %+v", err, refused)
		}
	case err != nil && !strings.Contains(r.log(t), "TLS configuration could not be reloaded"):
		t.Errorf("RELOAD: %v", err)
	}
	return took
}

// put writes a file and reloads it; it must be a good one.
func (r *reloader) put(t *testing.T, config string) {
	t.Helper()
	r.write(t, config)
	if !r.reload(t) {
		t.Fatalf("refused:\n%s\n%s", config, tailOf(r.log(t)))
	}
}

func tailOf(log string) string { return log[max(0, len(log)-1000):] }

func (r *reloader) settings(t *testing.T) []pgbini.Setting {
	t.Helper()
	s, err := r.p.Settings(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (r *reloader) read(t *testing.T) *pgbini.File {
	t.Helper()
	f, err := pgbini.ReadFile(r.ConfigPath, r.root)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (r *reloader) diff(t *testing.T) []pgbini.Difference {
	t.Helper()
	databases, err := r.p.ShowDatabases(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	return r.read(t).Diff(r.settings(t), databases)
}

func (r *reloader) wantNoDiff(t *testing.T, when string) {
	t.Helper()
	if d := r.diff(t); len(d) > 0 {
		t.Errorf("%s: %v", when, d)
	}
}

// wantOnly is the key and the line in the file of the only difference.
func (r *reloader) wantOnly(t *testing.T, when, key string, line int) pgbini.Difference {
	t.Helper()
	d := r.diff(t)
	if len(d) != 1 || d[0].Key != key || d[0].Line != line || d[0].File != r.ConfigPath {
		t.Errorf("%s: %+v, want only %s at line %d", when, d, key, line)
		return pgbini.Difference{}
	}
	return d[0]
}

func lines(s string) int { return strings.Count(s, "\n") }

var anyDatabase = single.PgBouncerOptions{Databases: "app = {backend}"}

// legal is a value that is not the default and that PgBouncer takes, in a form that it does not print so.
func legal(r *reloader, s pgbini.Setting) string {
	own := func(name string) string { return r.Dir + "/" + name }
	switch s.Key {
	case "admin_users":
		return "someone ,  " + single.AdminUser
	case "auth_file":
		return own("users2")
	case "conffile":
		return own("./pgbouncer.ini")
	case "logfile":
		return own("./log")
	case "auth_type":
		return "Trust"
	case "pool_mode":
		return "STATEMENT"
	case "client_tls_sslmode":
		return "Allow"
	case "server_tls_sslmode":
		return "Verify-Full"
	case "max_packet_size":
		return "0x10000000"
	case "server_login_retry":
		return "0.0432"
	case "syslog_facility":
		return "local0"
	}
	switch {
	case strings.HasPrefix(s.Key, "tcp_"):
		return "0x1f"
	case strings.HasSuffix(s.Key, "_timeout"), strings.HasSuffix(s.Key, "_ttl"), strings.HasSuffix(s.Key, "_delay"),
		strings.HasSuffix(s.Key, "_lifetime"), s.Key == "dns_zone_check_period":
		return "+1234567.8910"
	case s.Value != "" && strings.Trim(s.Value, "0123456789") == "":
		return "0x1f"
	}
	return "some, 'text' ; # = x"
}

func TestEverySettingIsSeen(t *testing.T) {
	eachSuite(t, anyDatabase, func(t *testing.T, r0 *rig) {
		r := newReloader(t, r0)
		for _, name := range []string{"users2"} {
			content, err := os.ReadFile(r.AuthPath)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(r.Dir, name), content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		r.wantNoDiff(t, "at the start")
		all := r.settings(t)
		changeable, stays := 0, []string{}
		for _, s := range all {
			base := strings.Join(
				slices.DeleteFunc(strings.SplitAfter(r.base, "\n"), func(l string) bool { return strings.HasPrefix(l, s.Key+" ") }),
				"",
			)
			changed := base + s.Key + " = " + legal(r, s) + "\n"
			if s.Key == "conffile" {
				changed, base = r.base+"conffile = "+legal(r, s)+"\n", r.base+"conffile = "+r.ConfigPath+"\n"
			}
			line := lines(changed)
			if !s.Changeable {
				r.write(t, changed)
				if d := r.wantOnly(t, "written", s.Key, line); !d.NeedsRestart || d.Want != legal(r, s) || d.Running != s.Value {
					t.Errorf("%+v, want needs a restart, %q", d, s.Value)
				}
				if err := r.read(t).Check(all); err != nil {
					t.Error(err)
				}
				r.put(t, changed)
				r.wantOnly(t, "reloaded", s.Key, line)
				r.put(t, r.base)
				continue
			}
			changeable++
			r.write(t, changed)
			if d := r.wantOnly(t, "written", s.Key, line); d.NeedsRestart || d.Problem != "" {
				t.Errorf("%+v", d)
			}
			if err := r.read(t).Check(all); err != nil {
				t.Errorf("%s: %v", s.Key, err)
			}
			r.put(t, changed)
			r.wantNoDiff(t, s.Key+" reloaded")
			// Taken out of the file, nearly all of them go back to the default.
			r.write(t, base)
			if s.Key != "verbose" && s.Key != "conffile" {
				r.wantOnly(t, "taken out", s.Key, 0)
			}
			r.put(t, base)
			if d := r.diff(t); len(d) == 1 && d[0].Key == s.Key && d[0].NeedsRestart && d[0].Line == 0 {
				stays = append(stays, s.Key)
				if s.Key != "auth_file" {
					r.put(t, base+s.Key+" =\n")
				}
			} else if len(d) > 0 {
				t.Errorf("%s taken out and reloaded: %v", s.Key, d)
			}
			r.put(t, r.base)
			r.wantNoDiff(t, "back to the first file, after "+s.Key)
		}
		want := map[string][]string{
			single.SuiteHost:   {"auth_file", "auth_user"},
			single.SuiteTrixie: {"auth_dbname", "auth_file", "auth_ident_file", "auth_user"},
			single.SuiteSid: {"auth_dbname", "auth_file", "auth_ident_file", "auth_ldap_options", "auth_user", "client_tls13_ciphers",
				"server_tls13_ciphers"},
		}[r.Suite]
		if d := cmp.Diff(want, stays); d != "" {
			t.Errorf("settings that stay when they are taken out of the file (-want +got):\n%s", d)
		}
		if changeable < 70 {
			t.Errorf("only %d settings were changed", changeable)
		}
	})
}

func TestBadValuesAreNamed(t *testing.T) {
	eachSuite(t, anyDatabase, func(t *testing.T, r0 *rig) {
		r := newReloader(t, r0)
		for _, bad := range []string{
			"pool_mode = nonsense", "default_pool_size = many", "server_lifetime = 5s", "auth_type = scram", "max_client_conn =",
			"server_tls_sslmode = on", "server_round_robin = yes", "no_such_key = 7", "min_pool_size = 5 ; comment",
		} {
			key, _, _ := strings.Cut(bad, " ")
			r.put(t, r.base)
			before := r.settings(t)
			config := r.base + bad + "\nquery_timeout = 99\n"
			r.write(t, config)
			line := lines(r.base) + 1

			var e *file.Problem
			if err := r.read(t).
				Check(before); !errors.As(err, &e) || e.Name != key || e.Line != line || e.File != r.ConfigPath ||
				e.Problem == "" {
				t.Errorf("%s: %v", bad, err)
			}
			if r.reload(t) {
				t.Errorf("%s: taken", bad)
			}
			found := r.diff(t)
			i := slices.IndexFunc(found, func(d pgbini.Difference) bool {
				return d.Key == key && d.Line == line && d.Problem != "" && !d.NeedsRestart
			})
			if i < 0 {
				t.Errorf("%s is not among %v", bad, found)
			}
			// PgBouncer stopped reading there.
			if !slices.ContainsFunc(found, func(d pgbini.Difference) bool { return d.Key == "query_timeout" && d.Line == line+1 }) {
				t.Errorf("%s: what comes after it is not among %v", bad, found)
			}
		}
		// At RELOAD nobody looks at these, but the next start fails.
		for _, bad := range []string{"listen_port = text", "pkt_buf = 4k", "so_reuseport = yes"} {
			config := r.base + bad + "\n"
			r.put(t, config)
			key, _, _ := strings.Cut(bad, " ")
			if d := r.wantOnly(t, bad, key, lines(config)); !d.NeedsRestart || d.Problem == "" {
				t.Errorf("%+v", d)
			}
			if err := r.read(t).Check(r.settings(t)); err != nil {
				t.Error(err)
			}
		}
	})
}

// A file, or the reason why it is refused by some of the versions.
type sample struct {
	name, head, tail string // before [databases] of a good file, and after its [pgbouncer]
	include          string // what {inc} is
	odd              bool   // taken, and made something else of
}

var samples = []sample{
	{name: "nothing more"},
	{name: "comments", tail: "; default_pool_size = abc\n# x\n  ; y\n\t#z"},
	{name: "junk", tail: "junk here\n"},
	{name: "no end of line", tail: "default_pool_size = 7"},
	{name: "carriage returns", tail: "\r\ndefault_pool_size = 7\r\n\r\n"},
	{name: "only carriage returns", tail: "\rdefault_pool_size = 7\r"},
	{name: "vertical space", tail: "\v\f default_pool_size \t=\t 7\v\f"},
	{name: "nul", tail: "default_pool_size = 7\n\x00junk\n"},
	{name: "nul in a line", tail: "default_pool_size = 7\x00junk\n"},
	{name: "byte order mark", head: "\xef\xbb\xbf"},
	{name: "no key", tail: "= 7\n"},
	{name: "no equal sign", tail: "default_pool_size\n"},
	{name: "equal sign on the next line", tail: "default_pool_size\n= 7\n"},
	{name: "key of other characters", tail: "default pool size = 7\n"},
	{name: "key with a quote", tail: "\"default_pool_size\" = 7\n"},
	{name: "upper case", tail: "DEFAULT_POOL_SIZE = 7\n"},
	{name: "unknown key", tail: "nosuch = 7\n"},
	{name: "unknown keys of later versions", tail: "transaction_timeout = 7\n"},
	{name: "peer_id", tail: "peer_id = 1\n"},
	{name: "removed", tail: "suspend_timeout = 7\n"},
	{name: "twice", tail: "default_pool_size = 7\ndefault_pool_size = 8\n"},
	{name: "twice, first bad", tail: "default_pool_size = x\ndefault_pool_size = 8\n"},
	{name: "hex", tail: "default_pool_size = 0x1F\n"},
	{name: "octal", tail: "default_pool_size = 010\n"},
	{name: "bad octal", tail: "default_pool_size = 08\n"},
	{name: "go's octal", tail: "default_pool_size = 0o10\n"},
	{name: "underscore", tail: "default_pool_size = 1_0\n"},
	{name: "hex underscore", tail: "default_pool_size = 0x_10\n"},
	{name: "only a prefix", tail: "default_pool_size = 0x\n"},
	{name: "negative", tail: "default_pool_size = -1\n"},
	{name: "two signs", tail: "default_pool_size = --1\n"},
	{name: "plus", tail: "default_pool_size = +1\n"},
	{name: "fraction", tail: "default_pool_size = 1.0\n"},
	{name: "too large", tail: "default_pool_size = 99999999999999999999999\n"},
	{name: "exponent", tail: "query_timeout = 1e1\n"},
	{name: "hex time", tail: "query_timeout = 0x10\n"},
	{name: "hex time with exponent", tail: "query_timeout = 0x1.8p3\n"},
	{name: "dot", tail: "query_timeout = .\n"},
	{name: "dot five", tail: "query_timeout = .5\n"},
	{name: "five dot", tail: "query_timeout = 5.\n"},
	{name: "negative time", tail: "query_timeout = -1\n"},
	{name: "negative zero", tail: "query_timeout = -0\n"},
	{name: "infinity", odd: true, tail: "query_timeout = inf\n"},
	{name: "long infinity", odd: true, tail: "query_timeout = Infinity\n"},
	{name: "not a number", odd: true, tail: "query_timeout = nan\n"},
	{name: "too large a time", tail: "query_timeout = 1e400\n"},
	{name: "too small a time", tail: "query_timeout = 1e-400\n"},
	{name: "underscore in a time", tail: "query_timeout = 1_0\n"},
	{name: "unit", tail: "query_timeout = 1s\n"},
	{name: "empty time", tail: "query_timeout =\n"},
	{name: "empty text", tail: "stats_users =\n"},
	{name: "empty mode", tail: "pool_mode =\n"},
	{name: "ldap", tail: "auth_type = ldap\n"},
	{name: "pam", tail: "auth_type = pam\n"},
	{name: "auth_dbname of the console", tail: "auth_dbname = pgbouncer\n"},
	{name: "listen_port that is none", tail: "listen_port = x\n"},

	{name: "section unknown", tail: "[nosuch]\n"},
	{name: "section with blanks", head: "[ databases ]\n"},
	{name: "section in capitals", head: "[Databases]\n"},
	{name: "section not closed", head: "[databases\n"},
	{name: "section empty", head: "[]\n"},
	{name: "section and more in a line", head: "[users] x = pool_mode=session\n"},
	{name: "section and comment", head: "[users] ; x\n"},
	{name: "before any section", head: "x = 1\n"},
	{name: "comment before any section", head: "; x = 1\n"},
	{name: "databases again", tail: "[databases]\nb = host=127.0.0.1\n"},

	{name: "quoted name", tail: "[databases]\n\"my db\" = host=127.0.0.1\n"},
	{name: "other names", tail: "[databases]\nmy-db.x_*y = host=127.0.0.1\n9 =\n"},
	{name: "no name", tail: "[databases]\n = host=127.0.0.1\n"},
	{name: "reserved", tail: "[databases]\npgbouncer = host=127.0.0.1\n"},
	{name: "not reserved", tail: "[databases]\nPgBouncer = host=127.0.0.1\n"},
	{name: "bad star", tail: "[databases]\n* = nonsense\n"},
	{name: "word", tail: "[databases]\nb = nonsense\n"},
	{name: "url", tail: "[databases]\nb = postgres://x/y\n"},
	{name: "unknown parameter", tail: "[databases]\nb = hots=127.0.0.1\n"},
	{name: "parameter of libpq", tail: "[databases]\nb = sslmode=require\n"},
	{name: "quotes", tail: "[databases]\nb = host='127.0.0.1' password='a''b c' dbname = 'x y'\n"},
	{name: "quote open", tail: "[databases]\nb = password='abc\n"},
	{name: "quote glued", tail: "[databases]\nb = host='127.0.0.1'port=8\n"},
	{name: "quote glued with one to lose", tail: "[databases]\nb = host='127.0.0.1'xport=8\n"},
	{name: "empty value", tail: "[databases]\nb = host=\n"},
	{name: "empty value takes the next", tail: "[databases]\nb = dbname= port=7\n"},
	{name: "empty quoted value", tail: "[databases]\nb = host=''\n"},
	{name: "only an equal sign", tail: "[databases]\nb = =\n"},
	{name: "tab", tail: "[databases]\nb = port=7\thost=127.0.0.1\n"},
	{name: "port of letters", tail: "[databases]\nb = port=abc\n"},
	{name: "port zero", tail: "[databases]\nb = port=0\n"},
	{name: "port and letters", tail: "[databases]\nb = port=5x\n"},
	{name: "size of letters", tail: "[databases]\nb = pool_size=abc\n"},
	{name: "mode", tail: "[databases]\nb = pool_mode=Session\n"},
	{name: "bad mode", tail: "[databases]\nb = pool_mode=default\n"},
	{name: "auth_dbname", tail: "[databases]\nb = auth_dbname=x\n"},
	{name: "auth_dbname of the console in a database", tail: "[databases]\nb = auth_dbname=pgbouncer\n"},
	{name: "auth_query", tail: "[databases]\nb = auth_query='select 1'\n"},
	{name: "lifetime", tail: "[databases]\nb = server_lifetime=5\n"},
	{name: "balance", tail: "[databases]\nb = load_balance_hosts=Disable\n"},
	{name: "bad balance", tail: "[databases]\nb = load_balance_hosts=yes\n"},
	{name: "reserve", tail: "[databases]\nb = reserve_pool=5\n"},
	{name: "reserve of later versions", tail: "[databases]\nb = reserve_pool_size=5\n"},
	{name: "clients", tail: "[databases]\nb = max_db_client_connections=5\n"},
	{name: "query_wait_timeout of a database", tail: "[databases]\nb = query_wait_timeout=5\n"},
	{name: "of 1.27 perhaps", tail: "[databases]\nb = target_session_attrs=any\n"},
	{
		name: "all of 1.18",
		tail: "[databases]\nb = host=127.0.0.1 port=7 dbname=x user=u password=p auth_user=a client_encoding=c datestyle=d timezone=e " +
			"pool_size=1 min_pool_size=2 reserve_pool=3 max_db_connections=4 pool_mode=session connect_query='select 1' " +
			"application_name=f\n",
	},

	{name: "user", tail: "[users]\nu = pool_mode=session max_user_connections=5\n"},
	{name: "user, bad mode", tail: "[users]\nu = pool_mode=x\n"},
	{name: "user, unknown", tail: "[users]\nu = x=1\n"},
	{name: "user, pool_size", tail: "[users]\nu = pool_size=1\n"},
	{name: "user, reserve_pool_size", tail: "[users]\nu = reserve_pool_size=1\n"},
	{name: "user, client_idle_timeout", tail: "[users]\nu = client_idle_timeout=1\n"},
	{name: "user, query_timeout", tail: "[users]\nu = query_timeout=1\n"},
	{name: "user, idle_transaction_timeout", tail: "[users]\nu = idle_transaction_timeout=1\n"},
	{name: "user, transaction_timeout", tail: "[users]\nu = transaction_timeout=1\n"},
	{name: "user, query_wait_timeout", tail: "[users]\nu = query_wait_timeout=1\n"},
	{name: "user, max_user_client_connections", tail: "[users]\nu = max_user_client_connections=1\n"},
	{name: "user named like the console", tail: "[users]\npgbouncer = pool_mode=session\n"},
	{name: "peers", tail: "[peers]\n"},
	{name: "peer", tail: "[peers]\n1 = host=127.0.0.1 port=1 pool_size=3\n"},
	{name: "peer of letters", tail: "[peers]\nx = host=127.0.0.1\n"},
	{name: "peer too large", tail: "[peers]\n65536 = host=127.0.0.1\n"},
	{name: "peer without host", tail: "[peers]\n1 = port=1\n"},
	{name: "peer, unknown", tail: "[peers]\n1 = host=127.0.0.1 user=x\n"},
	{name: "peer, port", tail: "[peers]\n1 = host=127.0.0.1 port=x\n"},

	{name: "include", tail: "%include {inc}\n", include: "default_pool_size = 7\n"},
	{name: "include, bad", tail: "%include {inc}\n", include: "\n\njunk\n"},
	{name: "include, blanks", tail: "  %include \t {inc}\t \r\n", include: "default_pool_size = 7\n"},
	{name: "include, a section in it goes on", tail: "%include {inc}\nafter = host=127.0.0.1\n", include: "[databases]\n"},
	{name: "include, a bad section in it goes on", tail: "%include {inc}\ndefault_pool_size = 7\n", include: "[databases]\n"},
	{name: "include relative", tail: "%include .{inc}\n", include: "default_pool_size = 7\n"},
	{name: "include relative to the file", tail: "%include inc\n", include: "default_pool_size = 7\n"},
	{name: "include quoted", tail: "%include \"{inc}\"\n"},
	{name: "include with comment", tail: "%include {inc} ; x\n"},
	{name: "include missing", tail: "%include {inc}2\n"},
	{name: "include nothing", tail: "%include \n"},
	{name: "include without a name", tail: "%include\n"},
	{name: "include glued", tail: "%includes {inc}\n"},
	{name: "include in capitals", tail: "%INCLUDE {inc}\n"},
	{name: "include inside a line", tail: "x %include {inc}\n"},
	{name: "include in a comment", tail: "; %include /nosuch\n"},
	{name: "include a folder", tail: "%include {dir}\n"},
	{name: "include the null device", tail: "%include /dev/null\n"},
	{name: "include itself", tail: "%include {inc}\n", include: "%include {inc}\n"},
	{name: "include unreadable", tail: "%include {dir}/secret\n"},
	{name: "include, depth 10", tail: "%include {dir}/depth1\n"},
	{name: "include, depth 11", tail: "%include {dir}/depth0\n"},
	{name: "include before the first section", head: "%include {inc}\n", include: "; nothing\n"},
	{name: "include with sections before the first section", head: "%include {inc}\nx = host=127.0.0.1\n", include: "[databases]\n"},
}

func TestReadFileAgreesWithPgBouncer(t *testing.T) {
	eachSuite(t, anyDatabase, func(t *testing.T, r0 *rig) {
		r := newReloader(t, r0)
		place := func(name, content string, mode os.FileMode) {
			if err := os.WriteFile(filepath.Join(r.Dir, name), []byte(content), mode); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 11 {
			next := fmt.Sprintf("%%include %s/depth%d\n", r.Dir, i+1)
			if i == 10 {
				next = "default_pool_size = 7\n"
			}
			place(fmt.Sprintf("depth%d", i), next, 0o644)
		}
		known := r.settings(t)
		refused := 0
		for _, s := range samples {
			fill := strings.NewReplacer("{inc}", filepath.Join(r.Dir, "inc"), "{dir}", r.Dir).Replace
			place("inc", fill(s.include), 0o644)
			r.put(t, r.base)
			r.write(t, fill(s.head)+r.base+fill(s.tail))
			took := r.reload(t)
			f, err := pgbini.ReadFile(r.ConfigPath, r.root)
			if err == nil {
				err = f.Check(known)
			}
			if s.name == "include unreadable" {
				// Root, as which we run here, is not told so.
				if took || err == nil {
					t.Errorf("%s: %v %v", s.name, took, err)
				}
				continue
			}
			if took != (err == nil) {
				t.Errorf("%s: PgBouncer takes it: %v; ours: %v", s.name, took, err)
			}
			var e *file.Problem
			if err != nil {
				refused++
				if !errors.As(err, &e) || e.Problem == "" || e.Line == 0 {
					t.Errorf("%s: %#v", s.name, err)
				}
			}
			if took && !s.odd {
				if d := slices.DeleteFunc(
					r.diff(t),
					func(d pgbini.Difference) bool { return d.NeedsRestart || d.Key == "database *" },
				); len(
					d,
				) > 0 {
					t.Errorf("%s: taken, and yet %v", s.name, d)
				}
			}
		}
		if refused < 40 {
			t.Errorf("only %d of %d are refused", refused, len(samples))
		}
		// The main section.
		r.write(t, "[databases]\na =\n")
		if _, err := pgbini.ReadFile(r.ConfigPath, r.root); r.reload(t) || err == nil {
			t.Errorf("without [pgbouncer]: %v", err)
		}
		r.put(t, r.base+"[pgbouncer]\nquery_timeout = 5\nadmin_users = "+single.AdminUser+"\nlogfile = "+r.Log+"\n")
		for _, d := range r.diff(t) {
			if !d.NeedsRestart || d.Line != 0 { // it would start with the defaults of those
				t.Errorf("a second [pgbouncer]: %v", d)
			}
		}
		if err := os.Remove(r.ConfigPath); err != nil {
			t.Fatal(err)
		}
		if _, err := pgbini.ReadFile(r.ConfigPath, r.root); r.reload(t) || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("no file: %v", err)
		}
	})
}
