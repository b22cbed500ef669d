package pgb_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/pgb"
)

// A user of stats_users can look at everything, and may not pause. Asking changes nothing, not even the mark of a pause.
func TestMayPause(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{
		Settings: map[string]string{"stats_users": "watcher", "log_stats": "0"}, Users: map[string]string{"watcher": single.Password},
	}, func(t *testing.T, r *rig) {
		p := r.pooler(t)
		if _, _, err := p.Mark(soon(t), pgb.Guard, 4); err != nil {
			t.Fatal(err)
		}
		before := r.mustPsql(t, "SHOW CONFIG").Rows
		if err := p.MayPause(soon(t)); err != nil {
			t.Errorf("a user of admin_users: %v", err)
		}
		watcher := resolveOne(t, pgb.Spec{DSN: fmt.Sprintf("postgres://watcher:%s@%s:%d/pgbouncer?sslmode=disable", single.Password, r.Addr,
			r.Port)})
		if _, err := watcher.State(soon(t)); err != nil {
			t.Fatalf("a user of stats_users may look: %v", err)
		}
		var refused *pgb.ServerError
		if err := watcher.MayPause(soon(t)); !errors.As(err, &refused) {
			t.Errorf("a user of stats_users: %v", err)
		}
		if diff := cmp.Diff(before, r.mustPsql(t, "SHOW CONFIG").Rows); diff != "" {
			t.Errorf("SHOW CONFIG has changed (-before +now):\n%s", diff)
		}
	})
}

func TestUserPoolModes(t *testing.T) {
	eachSuite(t, anyDatabase, func(t *testing.T, r *rig) {
		text, err := os.ReadFile(r.ConfigPath)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.RewriteConfig(string(text) + "\n[users]\npostgres = pool_mode=session max_user_connections=7\npgbouncer_admin = " +
			"max_user_connections=7\n"); err != nil {
			t.Fatal(err)
		}
		r.mustPsql(t, "RELOAD")
		modes, err := r.pooler(t).UserPoolModes(soon(t))
		if diff := cmp.Diff(map[string]string{"postgres": "session"}, modes); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
	})
}
