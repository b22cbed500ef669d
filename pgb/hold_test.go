package pgb_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/pgb"
)

func (r *rig) loginRetry(t *testing.T) string {
	t.Helper()
	config := r.mustPsql(t, "SHOW CONFIG")
	for row := range config.Rows {
		if config.Get(row, "key") == "server_login_retry" {
			return config.Get(row, "value")
		}
	}
	t.Fatal("no server_login_retry")
	return ""
}

func TestMarkOnRealConfig(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		p := r.pooler(t)
		owners := []pgb.Owner{pgb.Guard, pgb.Hand, pgb.Foreign}
		for _, original := range []string{"15", "0", "0.5", "99.9", "0.1", "3.3", "60"} {
			r.mustPsql(t, "SET server_login_retry = '"+original+"'")
			shown := r.loginRetry(t)
			seconds, err := strconv.ParseFloat(original, 64)
			if err != nil {
				t.Fatal(err)
			}
			want := time.Duration(seconds*10+0.5) * 100 * time.Millisecond
			for nonce := range 10 {
				for _, owner := range owners {
					before, put, err := p.Mark(soon(t), owner, nonce)
					if err != nil || !put || before != nil {
						t.Fatalf("%s: before %v, put %v, %v", original, before, put, err)
					}
					s, err := p.State(soon(t))
					if mark := (pgb.Mark{Original: want, Nonce: nonce, Owner: owner}); err != nil || s.Mark == nil || *s.Mark != mark {
						t.Fatalf("%s: %+v on the pooler, want %+v (%v)", original, s.Mark, mark, err)
					}
					if s.LoginRetry >= 100*time.Millisecond {
						t.Errorf("%s: retry after %v", original, s.LoginRetry)
					}
					if err := p.Unmark(soon(t)); err != nil {
						t.Fatal(err)
					}
					if got := r.loginRetry(t); got != shown {
						t.Fatalf("put back %s, was %s", got, shown)
					}
				}
			}
		}
	})
}

func TestMarkTwiceKeepsTheOriginal(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		p, other := r.pooler(t), r.pooler(t)
		if _, _, err := p.Mark(soon(t), pgb.Guard, 4); err != nil {
			t.Fatal(err)
		}
		if got := r.loginRetry(t); got != "0.015043" {
			t.Errorf("15 s, nonce 4, guard is %s", got)
		}
		before, put, err := other.Mark(soon(t), pgb.Hand, 9)
		if want := (pgb.Mark{Original: 15 * time.Second, Nonce: 4, Owner: pgb.Guard}); err != nil || !put || before == nil ||
			*before != want {
			t.Fatalf("before %+v, put %v, %v", before, put, err)
		}
		s, err := p.State(soon(t))
		if want := (pgb.Mark{Original: 15 * time.Second, Nonce: 9, Owner: pgb.Hand}); err != nil || s.Mark == nil || *s.Mark != want {
			t.Fatalf("%+v %v", s.Mark, err)
		}
		// A pause in between changes nothing about it.
		if _, err := p.Pause(soon(t)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Resume(soon(t)); err != nil {
			t.Fatal(err)
		}
		if err := p.Unmark(soon(t)); err != nil {
			t.Fatal(err)
		}
		if s, err := other.State(soon(t)); err != nil || s.Mark != nil || s.LoginRetry != 15*time.Second {
			t.Fatalf("%+v %v", s, err)
		}
		if err := p.Unmark(soon(t)); err != nil || r.loginRetry(t) != "15" {
			t.Errorf("a second Unmark: %v, %s", err, r.loginRetry(t))
		}
	})
}

func TestReloadTakesTheMarkAway(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{Settings: map[string]string{"server_login_retry": "2.5"}}, func(t *testing.T, r *rig) {
		p := r.pooler(t)
		if _, put, err := p.Mark(soon(t), pgb.Guard, 1); err != nil || !put {
			t.Fatal(put, err)
		}
		r.mustPsql(t, "RELOAD")
		until(t, "RELOAD is done", func() bool {
			s, err := p.State(soon(t))
			return err == nil && s.Mark == nil && s.LoginRetry == 2500*time.Millisecond
		})
		if err := p.Unmark(soon(t)); err != nil || r.loginRetry(t) != "2.5" {
			t.Errorf("%v, %s", err, r.loginRetry(t))
		}
	})
}

func TestWhatNoMarkCarriesIsLeftAlone(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		p := r.pooler(t)
		for _, original := range []string{"0.25", "100", "3600", "0.00005"} {
			r.mustPsql(t, "SET server_login_retry = '"+original+"'")
			shown := r.loginRetry(t)
			if before, put, err := p.Mark(soon(t), pgb.Guard, 1); before != nil || put || err != nil {
				t.Errorf("%s: before %v, put %v, %v", original, before, put, err)
			}
			if err := p.Unmark(soon(t)); err != nil {
				t.Error(err)
			}
			if got := r.loginRetry(t); got != shown {
				t.Errorf("%s has become %s", shown, got)
			}
		}
	})
}
