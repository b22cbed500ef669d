package pgb_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

const secret = "s3cr3t-of-the-test"

func TestEveryParameterOfADatabaseIsSeen(t *testing.T) {
	eachSuite(t, anyDatabase, func(t *testing.T, r0 *rig) {
		r := newReloader(t, r0)
		// The pooler's own are not the defaults, so that both kinds of number are told apart.
		base := r.base + "min_pool_size = 1\nreserve_pool_size = 2\nmax_db_connections = 50\nserver_lifetime = 77\n"
		params := []string{
			"host=127.0.0.9",
			"port=7",
			"dbname=other",
			"pool_size=3",
			"min_pool_size=4",
			"reserve_pool=5",
			"pool_mode=Session",
			"max_db_connections=6",
			"user=someone",
		}
		if r.Suite != single.SuiteHost {
			base += "max_db_client_connections = 60\n"
			params = slices.Insert(params, 0, "server_lifetime=8", "max_db_client_connections=9")
		}
		_, rest, _ := strings.Cut(base, "\n[pgbouncer]")
		file := func(entry string) string { return "[databases]\n" + entry + "\n[pgbouncer]" + rest }
		r.put(t, file("app ="))
		r.wantNoDiff(t, "at the start")
		for _, p := range params {
			name, value, _ := strings.Cut(p, "=")
			changed := file("app = password='" + secret + "' connect_query='" + secret + "' " + p)
			r.write(t, changed)
			if d := r.wantOnly(
				t,
				"written",
				"database app: "+name,
				2,
			); !strings.EqualFold(d.Want, value) || d.NeedsRestart ||
				strings.Contains(fmt.Sprint(d), secret) {
				t.Errorf("%+v", d)
			}
			r.put(t, changed)
			r.wantNoDiff(t, p)
			r.write(t, file("app ="))
			d := r.wantOnly(t, "taken out", "database app: "+name, 2)
			r.put(t, file("app ="))
			if name != "user" {
				r.wantNoDiff(t, p+" taken out")
				continue
			}
			// PgBouncer warns, and keeps it.
			if !d.NeedsRestart {
				t.Errorf("%+v", d)
			}
			r.wantOnly(t, "user taken out and reloaded", "database app: user", 2)
		}
	})
}

func TestDatabasesComeAndGo(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{Databases: "app = {backend}"}, func(t *testing.T, r0 *rig) {
		r := newReloader(t, r0)
		if _, err := r.client(t, "app").query("select 1"); err != nil {
			t.Fatal(err)
		}
		// Renamed: the old one is in use.
		renamed := strings.Replace(r.base, "app =", "app2 =", 1)
		r.write(t, renamed)
		d := r.diff(t)
		if len(d) != 2 || d[0].Key != "database app2" || d[0].Line != 2 || d[1].Key != "database app" || d[1].Line != 0 ||
			d[0].Problem == "" ||
			!d[1].NeedsRestart {
			t.Errorf("%+v", d)
		}
		r.put(t, renamed)
		// It goes at once, with its clients.
		r.wantNoDiff(t, "renamed")

		// A "*" line shows in the databases that came from it.
		star := fmt.Sprintf("* = host=%s port=%d dbname=postgres", r.pg.Addr, r.pg.Port)
		config := strings.Replace(r.base, "app =", star+"\napp =", 1)
		r.put(t, config)
		auto := r.listed(t, "auto")
		auto.must("begin; select 1")
		r.wantNoDiff(t, "with *")
		changed := strings.Replace(config, star, star+" pool_size=7", 1)
		r.write(t, changed)
		r.wantOnly(t, "* changed", "database auto: pool_size", 2)
		r.put(t, changed)
		r.wantNoDiff(t, "* changed and reloaded")
		// Taken away, it stays in force (1.18, 1.24, 1.26).
		r.put(t, r.base)
		if d := r.wantOnly(t, "* taken away", "database auto", 0); !d.NeedsRestart || d.Problem != "" || d.Running == "" {
			t.Errorf("%+v", d)
		}
		r.client(t, "auto3").must("select 1")
		// A "*" line that is nonsense is found by clients only.
		r.put(t, strings.Replace(config, star, "* = nonsense", 1))
		if d := r.diff(
			t,
		); !slices.ContainsFunc(
			d,
			func(d pgbini.Difference) bool { return d.Key == "database *" && d.Line == 2 && d.Problem != "" },
		) {
			t.Errorf("%v", d)
		}
		auto.must("commit")
	})
}

// What is right after RELOAD of an auth_file is a fact that docs state.
func TestAuthFileIsReadAtReload(t *testing.T) {
	eachSuite(
		t,
		single.PgBouncerOptions{
			Databases: "app = {backend} user=postgres password=" + single.Password,
			Users:     map[string]string{"someone": "old"},
		},
		func(t *testing.T, r0 *rig) {
			r := newReloader(t, r0)
			login := func(password string) error {
				c := parse(t, r.DSN("someone", "app"))
				c.Password = password
				p := resolveOne(
					t,
					pgb.Spec{
						DSN:      "host=" + c.Host + fmt.Sprintf(" port=%d", c.Port) + " user=someone dbname=app sslmode=disable",
						Password: password,
					},
				)
				defer p.Close()
				return p.Open(soon(t))
			}
			if err := login("old"); err != nil {
				t.Fatal(err)
			}
			replace(t, r.AuthPath, fmt.Sprintf("%q %q\n\"someone\" \"new\"\n", single.AdminUser, single.Password))
			if err := login("old"); err != nil {
				t.Errorf("before RELOAD: %v", err)
			}
			r.put(t, r.base)
			if err := login("new"); err != nil {
				t.Errorf("right after RELOAD: %v", err)
			}
			if err := login("old"); err == nil {
				t.Error("the old password is still good")
			}
		},
	)
}
