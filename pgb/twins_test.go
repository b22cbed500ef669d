package pgb_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/pgb"
)

// portOfBoth is free on ::1, where other tests are too.
func portOfBoth(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// namesOf are the poolers that are left behind a name with these addresses.
func behind(t *testing.T, spec pgb.Spec, addresses ...string) []*pgb.Pooler {
	t.Helper()
	poolers, errs := pgb.Resolve(t.Context(), []pgb.Spec{spec}, book(map[string][]string{"pool": addresses}))
	for _, err := range errs {
		t.Fatal(err)
	}
	left := pgb.OnePerProcess(soon(t), poolers)
	t.Cleanup(func() {
		for _, p := range left {
			p.Close()
		}
	})
	return left
}

func wantNames(t *testing.T, when string, poolers []*pgb.Pooler, addresses ...string) {
	t.Helper()
	var names []string
	for _, p := range poolers {
		host, _, _ := net.SplitHostPort(p.Name)
		names = append(names, host)
	}
	if got, want := strings.Join(names, " "), strings.Join(addresses, " "); got != want {
		t.Errorf("%s: %s, want %s", when, got, want)
	}
}

func dsnOf(r *rig) string { return strings.Replace(r.AdminDSN(), r.Addr, "pool", 1) }

// A name with an IPv4 and an IPv6 address, as localhost: the process behind it is one pooler, wherever it listens.
func TestOneProcessBehindTwoFamilies(t *testing.T) {
	opts := single.PgBouncerOptions{Port: portOfBoth(t)}
	eachSuite(t, opts, func(t *testing.T, r *rig) {
		spec := pgb.Spec{DSN: dsnOf(r)}
		// One look at a pooler that listens in one family only.
		left := behind(t, spec, "::1", r.Addr)
		wantNames(t, "::1 refuses", left, r.Addr)
		wantNames(t, "::1 refuses, the other way round", behind(t, spec, r.Addr, "::1"), r.Addr)
		spec.First = true
		left = behind(t, spec, "::1", r.Addr)
		wantNames(t, "::1 refuses and would be the only one", left, r.Addr)
		if _, err := left[0].State(soon(t)); err != nil {
			t.Error(err)
		}
		spec.First = false

		config, err := r.Config()
		if err != nil {
			t.Fatal(err)
		}
		both := strings.Replace(config, "listen_addr = "+r.Addr, "listen_addr = "+r.Addr+", ::1", 1)
		if err := r.RewriteConfig(both); err != nil || both == config {
			t.Fatal(err)
		}
		r.Stop()
		if err := r.Start(soon(t)); err != nil {
			t.Fatal(err)
		}
		left = behind(t, spec, "::1", r.Addr)
		wantNames(t, "it answers at both", left, r.Addr)
		if _, err := left[0].Pause(soon(t)); err != nil {
			t.Error(err)
		}
		wantNames(t, "it is paused", behind(t, spec, "::1", r.Addr), r.Addr)
		if was, err := left[0].Resume(soon(t)); err != nil || !was {
			t.Error(was, err)
		}
		wantNames(t, "only ::1 is asked for", behind(t, spec, "::1"), "::1")

		r.Kill()
		wantNames(t, "it is down", behind(t, spec, "::1", r.Addr), "::1", r.Addr)
	})
}

// Two processes behind one name stay two, and the one that is down is told.
func TestTwoProcessesBehindOneName(t *testing.T) {
	port := portOfBoth(t)
	eachSuite(t, single.PgBouncerOptions{Port: port}, func(t *testing.T, r *rig) {
		other, err := single.StartPgBouncer(
			soon(t),
			r.Suite,
			single.PgBouncerOptions{Port: port, Databases: "x = host=127.0.0.1", Settings: map[string]string{"so_reuseport": "0"}},
		)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		config, err := other.Config()
		if err != nil {
			t.Fatal(err)
		}
		if err := other.RewriteConfig(
			strings.Replace(config, "listen_addr = "+other.Addr, "listen_addr = "+other.Addr+", ::1", 1),
		); err != nil {
			t.Fatal(err)
		}
		other.Stop()
		if err := other.Start(soon(t)); err != nil {
			t.Fatal(err)
		}
		spec := pgb.Spec{DSN: dsnOf(r)}
		wantNames(t, "one in each family", behind(t, spec, r.Addr, "::1"), r.Addr, "::1")
		wantNames(t, "one of them in both", behind(t, spec, r.Addr, other.Addr, "::1"), r.Addr, other.Addr)
		r.Kill()
		wantNames(t, "the other one is down", behind(t, spec, r.Addr, other.Addr, "::1"), r.Addr, other.Addr)
		other.Kill()
		if err := r.Start(soon(t)); err != nil {
			t.Fatal(err)
		}
		wantNames(t, "the one in both is down", behind(t, spec, r.Addr, other.Addr), r.Addr, other.Addr)
	})
}

// Addresses of other hosts: where the pooler that answers says that it listens in both families, whoever refuses is another one.
func TestRefusingAddressOfAnotherHost(t *testing.T) {
	opts := single.PgBouncerOptions{Port: portOfBoth(t)}
	eachSuite(t, opts, func(t *testing.T, r *rig) {
		for _, both := range []bool{false, true} {
			want := []string{"10.0.0.1"}
			if both {
				want = []string{"fd00::1", "10.0.0.1"}
				config, err := r.Config()
				if err != nil {
					t.Fatal(err)
				}
				if err := r.RewriteConfig(strings.Replace(config, "listen_addr = "+r.Addr, "listen_addr = *", 1)); err != nil {
					t.Fatal(err)
				}
				r.Stop()
				if err := r.Start(soon(t)); err != nil {
					t.Fatal(err)
				}
			}
			look := func(addresses ...string) []*pgb.Pooler {
				poolers, _ := pgb.Resolve(t.Context(), []pgb.Spec{{DSN: dsnOf(r)}}, book(map[string][]string{"pool": addresses}))
				for _, p := range poolers {
					pgb.Dial(p, func(ctx context.Context, _, address string) (net.Conn, error) {
						if strings.HasPrefix(address, "10.0.0.1:") {
							return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(r.Addr, address[len("10.0.0.1:"):]))
						}
						return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
					})
				}
				left := pgb.OnePerProcess(soon(t), poolers)
				t.Cleanup(func() {
					for _, p := range left {
						p.Close()
					}
				})
				return left
			}
			wantNames(t, fmt.Sprint("it listens in both: ", both), look("fd00::1", "10.0.0.1"), want...)
			wantNames(t, "more refuse than answer", look("10.0.0.1", "fd00::1", "fd00::2"), "10.0.0.1", "fd00::1", "fd00::2")
			wantNames(t, "its neighbour is down", look("10.0.0.1", "10.0.0.2"), "10.0.0.1", "10.0.0.2")
		}
	})
}

// Peers are those of its configuration, itself left out.
func TestPeers(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		want := func(when string, n int) {
			t.Helper()
			if got, err := r.pooler(t).Peers(soon(t)); got != n || err != nil {
				t.Errorf("%s: %d, %v", when, got, err)
			}
		}
		want("none", 0)
		if r.Suite == single.SuiteHost { // 1.18 has no peers
			return
		}
		config, err := r.Config()
		if err != nil {
			t.Fatal(err)
		}
		r.Stop()
		config = strings.Replace(config, "[pgbouncer]\n", "[peers]\n1 = host=/a\n2 = host=/b\n3 = host=/c\n\n[pgbouncer]\npeer_id = 2\n", 1)
		if err := errors.Join(r.RewriteConfig(config), r.Start(soon(t))); err != nil {
			t.Fatal(err)
		}
		want("three processes", 2)
	})
}

// Who answers at an address: one process or several, on this machine by the kernel, and elsewhere by the consoles.
func TestOneProcess(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{Settings: map[string]string{"so_reuseport": "1"}}, func(t *testing.T, r *rig) {
		// As of another machine: the console is at an address that is not this one's.
		far := func() *pgb.Pooler {
			p := resolveOne(t, pgb.Spec{DSN: strings.Replace(r.AdminDSN(), r.Addr, "203.0.113.7", 1)})
			pgb.Dial(p, func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(r.Addr, fmt.Sprint(r.Port)))
			})
			return p
		}
		want := func(when string, one bool) {
			t.Helper()
			for name, p := range map[string]*pgb.Pooler{"here": r.pooler(t), "elsewhere": far()} {
				if got, err := p.OneProcess(soon(t)); got != one || err != nil {
					t.Errorf("%s, %s: %v, %v", when, name, got, err)
				}
			}
		}
		want("one", true)
		config, err := r.Config()
		if err != nil {
			t.Fatal(err)
		}
		other, err := single.StartPgBouncer(soon(t), r.Suite, single.PgBouncerOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		other.Stop()
		if err := other.RewriteConfig(strings.ReplaceAll(config, r.Dir, other.Dir)); err != nil {
			t.Fatal(err)
		}
		other.Addr = r.Addr
		if err := other.Start(soon(t)); err != nil {
			t.Fatal(err)
		}
		want("two", false)
		other.Close()
		want("one again", true)
	})
}
