package pgb_test

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/pgb"
	"golang.org/x/sys/unix"
)

func TestConsole(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		c := r.console(t)
		// Sid goes on: the package knows its version.
		var admin string
		if r.Suite != single.SuiteHost {
			admin = "--admindir=" + filepath.Join(cmp.Or(os.Getenv("PGBATON_LAB_DIR"), "/var/lib/pgbaton-lab"), r.Suite, "var/lib/dpkg")
		} else {
			admin = "--admindir=/var/lib/dpkg"
		}
		installed, err := exec.Command("dpkg-query", admin, "-W", "-f=${Version}", "pgbouncer").Output()
		if err != nil {
			t.Fatal(err)
		}
		upstream, _, _ := strings.Cut(string(installed), "-")
		if v := c.Version(); v != upstream+"/bouncer" {
			t.Errorf("version %q, the package has %s", v, installed)
		}

		r.listed(t, "postgres")
		result, err := c.Exec(soon(t), "SHOW DATABASES")
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for row := range result.Rows {
			if result.Get(row, "name") == "postgres" {
				found = true
				if result.Get(row, "host") != r.pg.Addr || result.Int(row, "port") != int(r.pg.Port) {
					t.Errorf("columns %v, row %v", result.Columns, result.Rows[row])
				}
				if result.Get(row, "no_such_column") != "" || result.Int(row, "host") != 0 {
					t.Error("what is not there has a value")
				}
			}
		}
		if !found || result.Tag != "SHOW" {
			t.Errorf("tag %s, rows %v", result.Tag, result.Rows)
		}

		var server *pgb.ServerError
		if _, err := c.Exec(soon(t), "SHOW NONSENSE"); !errors.As(err, &server) || server.Message == "" {
			t.Errorf("%v is no ServerError", err)
		}
		if !c.Usable() {
			t.Error("a refused statement has ended the console")
		}
		if _, err := c.Exec(soon(t), "SHOW VERSION"); err != nil {
			t.Error(err)
		}

		// One statement at a time.
		if err := c.Send(soon(t), "SHOW VERSION"); err != nil {
			t.Fatal(err)
		}
		if err := c.Send(soon(t), "SHOW POOLS"); err == nil || c.Usable() {
			t.Errorf("a second statement went out: %v", err)
		}
		if _, err := c.Receive(soon(t)); err != nil || !c.Usable() {
			t.Error(err)
		}
		c.Close()
		if _, err := c.Exec(soon(t), "SHOW VERSION"); err == nil || c.Usable() {
			t.Errorf("a closed console answers: %v", err)
		}
	})
}

func TestConnectAuthentication(t *testing.T) {
	for _, auth := range []string{"scram-sha-256", "md5"} {
		t.Run(auth, func(t *testing.T) {
			eachSuite(t, single.PgBouncerOptions{Settings: map[string]string{"auth_type": auth}}, func(t *testing.T, r *rig) {
				admin := r.AdminDSN()
				if auth == "md5" {
					// A console that asks for less than SCRAM has to be asked for.
					err := resolveOne(t, pgb.Spec{DSN: admin}).Open(soon(t))
					if !errors.Is(err, pgb.ErrAuthMethod) {
						t.Errorf("without require_auth: %v", err)
					}
					withoutSecrets(t, err)
					admin += "&require_auth=md5"
				}
				for _, mode := range []string{"disable", "prefer"} {
					dsn := strings.Replace(admin, "sslmode=disable", "sslmode="+mode, 1)
					if s, err := resolveOne(t, pgb.Spec{DSN: dsn}).State(soon(t)); err != nil || s.Version == "" {
						t.Errorf("%s: %+v %v", mode, s, err)
					}
				}
				const wrong = "hush-hush-wrong"
				p := resolveOne(t, pgb.Spec{DSN: admin, Password: wrong})
				err := p.Open(soon(t))
				var console *pgb.ConsoleError
				var server *pgb.ServerError
				if !errors.As(err, &console) || console.Op != "connect" || console.Pooler != p.Name || !errors.As(err, &server) {
					t.Errorf("wrong password: %v", err)
				}
				withoutSecrets(t, err, wrong)

				// Another user may connect to the console only if it is an admin.
				u, _ := url.Parse(admin)
				u.User = url.UserPassword("postgres", single.Password)
				err = resolveOne(t, pgb.Spec{DSN: u.String()}).Open(soon(t))
				if !errors.As(err, &server) {
					t.Errorf("no admin: %v", err)
				}
				withoutSecrets(t, err)
			})
		})
	}
}

func withoutSecrets(t *testing.T, err error, more ...string) {
	t.Helper()
	for _, secret := range append(more, single.Password) {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("a secret in %v", err)
		}
	}
}

func TestConnectRefused(t *testing.T) {
	p := resolveOne(t, pgb.Spec{DSN: "postgres://u:hush@127.0.0.1:1/pgbouncer?sslmode=disable"})
	err := p.Open(soon(t))
	var console *pgb.ConsoleError
	if !errors.As(err, &console) || !errors.Is(err, unix.ECONNREFUSED) || strings.Contains(err.Error(), "hush") {
		t.Errorf("%v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Open(gone); !errors.As(err, &console) {
		t.Errorf("%v", err)
	}
}

func TestConnectTLS(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		const name = "pooler.pgbaton.example"
		ca := r.certify(t, name)
		config, err := r.Config()
		if err != nil {
			t.Fatal(err)
		}
		config += "client_tls_sslmode = require\nclient_tls_key_file = " + filepath.Join(r.Dir, "key.pem") +
			"\nclient_tls_cert_file = " + filepath.Join(r.Dir, "cert.pem") + "\n"
		plain := r.console(t)
		if err := r.RewriteConfig(config); err != nil {
			t.Fatal(err)
		}
		if _, err := plain.Exec(soon(t), "RELOAD"); err != nil {
			t.Fatal(err)
		}
		until(t, "TLS is required", func() bool { return r.pooler(t).Open(soon(t)) != nil })

		lookup := func(context.Context, string) ([]string, error) { return []string{r.Addr}, nil }
		open := func(host, mode, root string) (*pgb.Pooler, error) {
			u, _ := url.Parse(r.AdminDSN())
			u.Host = host + ":" + u.Port()
			u.RawQuery = url.Values{"sslmode": {mode}, "sslrootcert": {root}}.Encode()
			poolers, errs := pgb.Resolve(soon(t), []pgb.Spec{{DSN: u.String()}}, lookup)
			if len(poolers) != 1 || len(errs) > 0 {
				t.Fatal(poolers, errs)
			}
			t.Cleanup(poolers[0].Close)
			return poolers[0], poolers[0].Open(soon(t))
		}
		cfg := parse(t, strings.Replace(r.DSN("postgres", "postgres"), "sslmode=disable", "sslmode=require", 1))
		connectClient(t, cfg).must("begin; select 1")
		issued := 0
		for _, mode := range []string{"prefer", "require", "verify-ca", "verify-full"} {
			p, err := open(name, mode, ca)
			if err != nil {
				t.Errorf("%s: %v", mode, err)
				continue
			}
			if _, err := p.State(soon(t)); err != nil {
				t.Errorf("%s: %v", mode, err)
			}
			// The end of a context interrupts TLS, too.
			ctx, end := context.WithCancel(soon(t))
			paused := run(func() error { _, err := p.Pause(ctx); return err })
			issued++
			r.heard(t, pauseIssued, issued)
			end()
			wantNotDrained(t, wantDone(t, "pause", paused), 1)
			if was, err := p.Resume(soon(t)); err != nil || !was {
				t.Errorf("%s: resume %v %v", mode, was, err)
			}
		}
		_, err = open("another.pgbaton.example", "verify-full", ca)
		var console *pgb.ConsoleError
		var hostname x509.HostnameError
		if !errors.As(err, &console) || !errors.As(err, &hostname) {
			t.Errorf("another name: %v", err)
		} else if withoutSecrets(t, err); strings.Contains(err.Error(), single.AdminUser) {
			t.Errorf("the error repeats the connection string: %v", err)
		}
		if _, err = open(name, "disable", ca); !errors.As(err, &console) {
			t.Errorf("without TLS: %v", err)
		}
	})
}

// certify writes a throw-away certificate that is its own authority, and returns where it is.
func (r *rig) certify(t *testing.T, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var owner unix.Stat_t
	if err := unix.Stat(r.Dir, &owner); err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		path := filepath.Join(r.Dir, file)
		if err := errors.Join(
			os.WriteFile(path, pem.EncodeToMemory(block), 0o600),
			os.Chown(path, int(owner.Uid), int(owner.Gid)),
		); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(r.Dir, "cert.pem")
}

func TestUnixSocketConsole(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		u, _ := url.Parse(r.AdminDSN())
		dsn := "host=" + r.SocketDir + " port=" + u.Port() + " user=" + single.AdminUser + " dbname=pgbouncer"
		p := resolveOne(t, pgb.Spec{DSN: dsn, Password: single.Password})
		if s, err := p.State(soon(t)); err != nil || s.Version == "" {
			t.Errorf("%+v %v", s, err)
		}
	})
}

func TestRestartedPoolerIsReconnectedOnce(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		p := r.pooler(t)
		if _, err := p.State(soon(t)); err != nil {
			t.Fatal(err)
		}
		for _, end := range []func(){r.Kill, r.Stop} {
			end()
			if err := r.Start(soon(t)); err != nil {
				t.Fatal(err)
			}
			if _, err := p.State(soon(t)); err != nil {
				t.Errorf("after a restart: %v", err)
			}
		}
		r.Kill()
		_, err := p.State(soon(t))
		var console *pgb.ConsoleError
		if !errors.As(err, &console) || !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("of a pooler that is gone: %v", err)
		}
	})
}

func TestFrozenPoolerEndsWithTheContext(t *testing.T) {
	eachSuite(t, single.PgBouncerOptions{}, func(t *testing.T, r *rig) {
		open, fresh := r.pooler(t), r.pooler(t)
		c := r.console(t)
		if err := open.Open(soon(t)); err != nil {
			t.Fatal(err)
		}
		if err := r.Freeze(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Thaw() }()
		const patience = 150 * time.Millisecond
		for name, call := range map[string]func(context.Context) error{
			"State":  func(ctx context.Context) error { _, err := open.State(ctx); return err },
			"Open":   fresh.Open,
			"Pause":  func(ctx context.Context) error { _, err := fresh.Pause(ctx); return err },
			"Resume": func(ctx context.Context) error { _, err := fresh.Resume(ctx); return err },
			"Exec":   func(ctx context.Context) error { _, err := c.Exec(ctx, "SHOW POOLS"); return err },
		} {
			start := time.Now() // before the context's own clock starts
			ctx := within(t, patience)
			err := call(ctx)
			// 200 ms more are Pause's own, to count what is in the way; the rest is a slow machine.
			if took := time.Since(start); err == nil || took < patience || took > patience+2*time.Second {
				t.Errorf("%s: after %v: %v", name, took, err)
			}
			var console *pgb.ConsoleError
			var notDrained *pgb.NotDrainedError
			if !errors.As(err, &console) && !errors.As(err, &notDrained) {
				t.Errorf("%s: %T %v", name, err, err)
			}
		}
		cancelled, cancel := context.WithCancel(t.Context())
		done := run(func() error { _, err := fresh.State(cancelled); return err })
		cancel()
		if err := wantDone(t, "State", done); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

// A console that asks for the password by another method than SCRAM is not told it, unless the dsn says so.
func TestPasswordBySCRAMOnly(t *testing.T) {
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			for method, settings := range map[string]map[string]string{"md5": {"auth_type": "md5"}, "plain": {"auth_type": "plain"}} {
				b, err := single.StartPgBouncer(
					t.Context(),
					suite,
					single.PgBouncerOptions{Settings: settings, Databases: "x = host=127.0.0.1"},
				)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(b.Close)
				try := func(more string) error {
					cfg, err := pgconn.ParseConfig(b.AdminDSN() + more)
					if err != nil {
						t.Fatal(err)
					}
					c, err := pgb.Connect(t.Context(), "console", cfg)
					if err == nil {
						c.Close()
					}
					return err
				}
				if err := try(""); !errors.Is(err, pgb.ErrAuthMethod) {
					t.Errorf("%s: %v", method, err)
				}
				allowed := "&require_auth=md5"
				if method == "plain" {
					allowed = "&require_auth=password"
				}
				if err := try(allowed); err != nil {
					t.Errorf("%s with %s: %v", method, allowed, err)
				}
			}
		})
	}
}
