package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// What pgconn does not know it hands on as a parameter for the server: that shows what value it reads.
func FuzzSetting(f *testing.F) {
	for _, s := range []string{
		"", "x=1", "x = 1", "x='a b' y=2", `x=a\ b`, `x='it\'s'`, "x=1 x=2", "y=x=1", "host=h x=", `x='a'y=2`, "x=1\n", `x=a\`, "a=b  ",
		"postgres://h/d?x=1", "postgres://h?x=1&x=2", "postgres://u:p@h/d?y=2&x=%41%2f", "postgres://u?x=3@h/d?x=1",
		"postgresql://h/?x=a b", "postgres://h/d? x =1",
		"postgres://h1,h2:5/d?x=1", "postgres:///d?x=&y=1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		config, err := pgconn.ParseConfig(s)
		if err != nil {
			t.Skip()
		}
		want, has := config.RuntimeParams["x"]
		if got, ok := setting(s, "x"); got != want || ok != has {
			t.Errorf("%q: %q %v, pgconn reads %q %v", s, got, ok, want, has)
		}
		// And what At starts from is never led elsewhere.
		if e := parseElsewhere(s); e.err == nil && (e.config.Host != neutralHost || e.config.Port != 5432) {
			t.Errorf("%q leads At to %s:%d", s, e.config.Host, e.config.Port)
		}
	})
}
