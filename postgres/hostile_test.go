package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/e2e/hostile"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/postgres"
)

// What can stand at the address of a server, or on the route, and mean harm: see package hostile.
func TestHostileServer(t *testing.T) { hostile.Try(t) }

// asHostileClient is what this test binary does as a client of a hostile server: all that a server is asked. What is returned is what
// people see of it.
func asHostileClient() bool {
	do := func(what func(ctx context.Context, c *postgres.Conn) (string, error)) func(string, int, time.Duration) string {
		return func(host string, port int, limit time.Duration) string {
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			s, err := postgres.Open(
				fmt.Sprintf("host=%s port=%d user=u dbname=d sslmode=disable password=%s", host, port, hostile.Password),
			)
			if err != nil {
				return err.Error()
			}
			c, err := s.Connect(ctx)
			if err != nil {
				return err.Error()
			}
			defer c.Close()
			text, err := what(ctx, c)
			if err != nil {
				text += "\n" + err.Error()
			}
			return text
		}
	}
	return hostile.Client(
		do(func(ctx context.Context, c *postgres.Conn) (string, error) {
			id, err := c.Identity(ctx)
			return fmt.Sprint(id.ServerVersion), err
		}),
		do(func(ctx context.Context, c *postgres.Conn) (string, error) {
			open, err := c.OpenTransactions(ctx)
			return fmt.Sprintf("%.500v", open), err
		}),
		do(func(ctx context.Context, c *postgres.Conn) (string, error) {
			lags, err := c.Lags(ctx)
			return fmt.Sprintf("%.500v", lags), err
		}),
		do(func(ctx context.Context, c *postgres.Conn) (string, error) {
			problems, err := c.FileErrors(ctx)
			return fmt.Sprintf("%.500v", problems), err
		}),
		do(func(ctx context.Context, c *postgres.Conn) (string, error) {
			p, err := c.Postmaster(ctx)
			if err == nil {
				p.Close()
				return "a postmaster", nil
			}
			return "", err
		}),
	)
}

// A server that is not the one whose process it names: by TCP anybody may answer at the address of a server that is down, and have
// another one of the same user stopped in its place.
func TestPostmasterOfALiar(t *testing.T) {
	pg := start(t, single.SuiteTrixie, single.PostgresOptions{})
	s, err := postgres.Open(pg.SocketDSN("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	real, err := s.Connect(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	defer real.Close()
	backend := sessionOf(t, real)

	// A data directory of somebody who wants the server stopped.
	theirs := t.TempDir()
	forged := func(port int, uid int) string {
		dir, err := os.MkdirTemp(theirs, "data")
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "postmaster.pid")
		if err := os.WriteFile(path, fmt.Appendf(nil, "%d\n%s\n1\n%d\n", pg.PID, dir, port), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, uid, -1); err != nil {
			t.Skip(err)
		}
		return dir
	}
	owner := ownerOf(t, filepath.Join(pg.DataDir, "postmaster.pid"))
	fifo := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(fifo, "postmaster.pid"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		host    string
		dataDir func(port int) string
		want    string
	}{
		"another port": {"127.0.0.1:0", func(int) string { return pg.DataDir }, "is not of the server at port"},
		"the same port, another host": {fmt.Sprintf("127.0.0.9:%d", pg.Port), func(int) string { return pg.DataDir },
			"does not have that connection"},
		"a forged file": {"127.0.0.1:0", func(port int) string { return forged(port, owner) },
			"does not have that connection"},
		"another user's file": {"127.0.0.1:0", func(port int) string { return forged(port, owner+1) },
			"does not belong to the user"},
		"a named pipe": {"127.0.0.1:0", func(int) string { return fifo }, "named pipe"},
		"no path":      {"127.0.0.1:0", func(int) string { return "data\x1b[31m" }, "not an absolute path"},
	} {
		t.Run(name, func(t *testing.T) {
			at, dataDir := liar(t, c.host, backend)
			*dataDir = c.dataDir(at.Port)
			p, err := postmaster(fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres sslmode=disable", at.IP, at.Port))
			if err == nil {
				p.Close()
				t.Fatalf("process %d would be stopped", p.PID())
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

func sessionOf(t *testing.T, c *postgres.Conn) int {
	t.Helper()
	pid, err := postgres.BackendPID(testContext(t), c)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func ownerOf(t *testing.T, path string) int {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return int(st.Uid)
}

// liar answers as a server whose session is the process backend and whose data directory is what dataDir is set to.
func liar(t *testing.T, listen string, backend int) (at *net.TCPAddr, dataDir *string) {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	dataDir = new(string)
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			served <- err
			return
		}
		defer c.Close()
		b := pgproto3.NewBackend(c, c)
		if _, err := b.ReceiveStartupMessage(); err != nil {
			served <- err
			return
		}
		b.Send(&pgproto3.AuthenticationOk{})
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		for b.Flush() == nil {
			m, err := b.Receive()
			q, ok := m.(*pgproto3.Query)
			if err != nil || !ok {
				break
			}
			value := strconv.Itoa(backend)
			if strings.Contains(q.String, "data_directory") {
				value = *dataDir
			}
			b.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("v"), DataTypeOID: 25}}})
			b.Send(&pgproto3.DataRow{Values: [][]byte{[]byte(value)}})
			b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
			b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		}
		served <- nil
	}()
	t.Cleanup(func() {
		_ = l.Close()
		if err := <-served; err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return l.Addr().(*net.TCPAddr), dataDir
}
