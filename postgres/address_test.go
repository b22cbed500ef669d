package postgres_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/postgres"
)

// forwarder counts the connections that it passes on.
type forwarder struct {
	net.Listener
	count atomic.Int32
}

func forward(t *testing.T, to string) *forwarder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &forwarder{Listener: l}
	var all sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			f.count.Add(1)
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
				all.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					_ = way[0].Close()
				})
			}
		}
	})
	return f
}

func (f *forwarder) port() uint16 { return uint16(f.Addr().(*net.TCPAddr).Port) }

// useTLS gives a server a certificate for one name and returns the file of its issuer.
func useTLS(t *testing.T, pg *single.Postgres, name string) (caFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IsCA: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	owner, err := os.Stat(pg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	for file, content := range map[string][]byte{"server.crt": cert, "server.key": private} {
		path := filepath.Join(pg.DataDir, file)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, int(owner.Sys().(*syscall.Stat_t).Uid), -1); err != nil {
			t.Fatal(err)
		}
	}
	for _, sql := range []string{"alter system set ssl = on", "select pg_reload_conf()"} {
		if err := pg.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	caFile = filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(caFile, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	return caFile
}

// With sslmode=prefer, the default, one Connect is one connection: to a server without TLS and to one with it.
func TestPreferIsOneConnection(t *testing.T) {
	for _, suite := range []string{single.SuiteTrixie, single.SuiteSid} {
		t.Run(suite, func(t *testing.T) {
			pg := start(t, suite, single.PostgresOptions{})
			f := forward(t, fmt.Sprintf("%s:%d", pg.Addr, pg.Port))
			direct, err := postgres.Open(
				fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres password=%s", f.port(), single.Password),
			)
			if err != nil {
				t.Fatal(err)
			}
			local, err := postgres.Open(
				fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres password=%s", pg.SocketDir, pg.Port, single.Password),
			)
			if err != nil {
				t.Fatal(err)
			}
			tries := func(want string) {
				t.Helper()
				for name, s := range map[string]*postgres.Server{
					"Open": direct,
					"At":   local.At(postgres.Address{Host: "127.0.0.1", Port: f.port()}),
					"name": local.At(postgres.Address{Host: "db.pgbaton.test", IP: "127.0.0.1", Port: f.port()}),
				} {
					before := f.count.Load()
					c, err := s.Connect(testContext(t))
					if err != nil {
						t.Errorf("%s: %v", name, err)
						continue
					}
					if _, err := c.Identity(testContext(t)); err != nil {
						t.Errorf("%s: %v", name, err)
					}
					c.Close()
					if n := f.count.Load() - before; n != 1 {
						t.Errorf("%s, %s: %d connections", name, want, n)
					}
				}
			}
			tries("a server without TLS")
			ca := useTLS(t, pg, "db.pgbaton.test")
			probe := session(t, pg.SocketDSN("postgres", "postgres"), "")
			eventually(t, "the server has TLS", func() bool {
				r, err := probe.Exec(testContext(t), "show ssl").ReadAll()
				return err == nil && string(r[0].Rows[0][0]) == "on"
			})
			tries("a server with TLS")
			// A name is verified although an address is dialled.
			for _, c := range []struct {
				host string
				well bool
			}{{"db.pgbaton.test", true}, {"other.pgbaton.test", false}, {"127.0.0.1", false}} {
				s, err := postgres.Open(
					fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres password=%s sslmode=verify-full sslrootcert=%s",
						pg.SocketDir, pg.Port, single.Password, ca),
				)
				if err != nil {
					t.Fatal(err)
				}
				conn, err := s.At(postgres.Address{Host: c.host, IP: "127.0.0.1", Port: f.port()}).Connect(testContext(t))
				if err == nil {
					conn.Close()
				}
				if (err == nil) != c.well {
					t.Errorf("verify-full, the certificate is for db.pgbaton.test, at %s: %v", c.host, err)
				}
			}
		})
	}
}

// greedy asks for a password in the clear and notes what it is told. It lies, which no real server does on demand.
func greedy(t *testing.T) (port uint16, told func() []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var heard []string
	var all sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				back := pgproto3.NewBackend(conn, conn)
				for {
					message, err := back.ReceiveStartupMessage()
					if err != nil {
						return
					}
					if _, ok := message.(*pgproto3.SSLRequest); !ok {
						break
					}
					if _, err := conn.Write([]byte{'N'}); err != nil {
						return
					}
				}
				back.Send(&pgproto3.AuthenticationCleartextPassword{})
				if back.Flush() != nil || back.SetAuthType(pgproto3.AuthTypeCleartextPassword) != nil {
					return
				}
				if message, err := back.Receive(); err == nil {
					if p, ok := message.(*pgproto3.PasswordMessage); ok {
						mu.Lock()
						heard = append(heard, p.Password)
						mu.Unlock()
					}
				}
			})
		}
	})
	return uint16(l.Addr().(*net.TCPAddr).Port), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return heard
	}
}

// At an address that somebody else has named no password is shown: not one that the password file limits to another server, and none at
// all by another method than SCRAM.
func TestAtShowsNoPassword(t *testing.T) {
	port, told := greedy(t)
	file := filepath.Join(t.TempDir(), "pgpass")
	passfile := func(lines string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	connect := func(dsn string) error {
		t.Helper()
		s, err := postgres.Open(dsn)
		if err != nil {
			t.Fatal(err)
		}
		c, err := s.At(postgres.Address{Host: "127.0.0.1", Port: port}).Connect(testContext(t))
		if err == nil {
			c.Close()
			t.Fatal("let in")
		}
		return err
	}
	secret := func() bool {
		for _, p := range told() {
			if p == "s3cret" {
				return true
			}
		}
		return false
	}
	local := "host=/var/run/postgresql user=postgres dbname=postgres passfile=" + file
	passfile("localhost:5432:*:postgres:s3cret\n")
	_ = connect(local)
	if secret() {
		t.Error("the local server's password, of the password file")
	}
	for name, dsn := range map[string]string{
		"of the password file": local, "of the string": "host=/tmp user=postgres dbname=d password=s3cret",
		"of a URL": "postgres://postgres:s3cret@10.0.0.1/d",
	} {
		passfile("*:*:*:*:s3cret\n")
		if err := connect(dsn); !postgres.Denied(err) {
			t.Errorf("%s: %v", name, err)
		}
		if secret() {
			t.Errorf("a password %s, in the clear", name)
		}
	}
	// Whoever says so has it otherwise; and so it is seen that the rest of this test could fail.
	_ = connect("postgres://postgres:s3cret@10.0.0.1/d?require_auth=password")
	eventually(t, "require_auth=password", secret)
}

// The password file decides for each address.
func TestAtPasswordFile(t *testing.T) {
	pg := start(t, single.SuiteTrixie, single.PostgresOptions{})
	file := filepath.Join(t.TempDir(), "pgpass")
	for _, c := range []struct {
		line string
		host string
		well bool
	}{
		{"localhost:*:*:postgres:", pg.Addr, false},
		{pg.Addr + ":*:*:postgres:", pg.Addr, true},
		{"db.pgbaton.test:*:*:postgres:", "db.pgbaton.test", true},
		{pg.Addr + ":*:*:postgres:", "db.pgbaton.test", true},
		{pg.Addr + ":*:other:postgres:", pg.Addr, false},
		{pg.Addr + ":1:*:postgres:", pg.Addr, false},
	} {
		if err := os.WriteFile(file, []byte(c.line+single.Password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := postgres.Open(pg.SocketDSN("postgres", "postgres") + " passfile=" + file)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := s.At(postgres.Address{Host: c.host, IP: pg.Addr, Port: pg.Port}).Connect(testContext(t))
		if err == nil {
			conn.Close()
		}
		if (err == nil) != c.well || err != nil && !postgres.Denied(err) {
			t.Errorf("%s at %s: %v", c.line, c.host, err)
		}
	}
}

// What a server has replayed since it was started: nothing after a fast shutdown, its own transactions after a crash, and a promotion
// leaves it.
func TestReplay(t *testing.T) {
	for _, suite := range []string{single.SuiteTrixie, single.SuiteSid} {
		t.Run(suite, func(t *testing.T) {
			pg := start(t, suite, single.PostgresOptions{})
			replay := func() postgres.Replay {
				t.Helper()
				r, err := connect(t, pg.SocketDSN("postgres", "postgres")).Replay(testContext(t))
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			asStandby := func() {
				t.Helper()
				owner, err := os.Stat(pg.DataDir)
				if err != nil {
					t.Fatal(err)
				}
				signal := filepath.Join(pg.DataDir, "standby.signal")
				if err := os.WriteFile(signal, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Chown(signal, int(owner.Sys().(*syscall.Stat_t).Uid), -1); err != nil {
					t.Fatal(err)
				}
				if err := pg.Start(testContext(t)); err != nil {
					t.Fatal(err)
				}
			}
			session(t, pg.SocketDSN("postgres", "postgres"), "create table t (); insert into t default values")
			pg.Stop()
			asStandby()
			if r := replay(); !r.LastXact.IsZero() || r.Up <= 0 || r.Up > time.Minute {
				t.Errorf("after a fast shutdown: %+v", r)
			}
			session(t, pg.SocketDSN("postgres", "postgres"), "select pg_promote()")
			session(t, pg.SocketDSN("postgres", "postgres"), "insert into t default values")
			pg.Kill()
			asStandby()
			before := replay()
			if before.LastXact.IsZero() {
				t.Errorf("after a crash: %+v", before)
			}
			session(t, pg.SocketDSN("postgres", "postgres"), "select pg_promote()")
			session(t, pg.SocketDSN("postgres", "postgres"), "insert into t default values")
			if after := replay(); !after.LastXact.Equal(before.LastXact) {
				t.Errorf("promoted: %+v, before %+v", after, before)
			}
		})
	}
}
