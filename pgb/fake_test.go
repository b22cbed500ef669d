package pgb_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/pgbaton/pgbaton/pgb"
)

// fake is a console that does what no real one will do when it is asked to.
type fake struct {
	t        *testing.T
	answer   func(statement string, b *pgproto3.Backend, c net.Conn) (keep bool)
	listener net.Listener
	handlers sync.WaitGroup

	mu     sync.Mutex
	open   []net.Conn
	heard  []string
	logins int
}

func newFake(t *testing.T, answer func(statement string, b *pgproto3.Backend, c net.Conn) bool) *fake {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{t: t, answer: answer, listener: l}
	f.handlers.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.open = append(f.open, c)
			f.mu.Unlock()
			f.handlers.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		f.mu.Lock()
		for _, c := range f.open {
			c.Close()
		}
		f.mu.Unlock()
		f.handlers.Wait()
	})
	return f
}

func (f *fake) serve(c net.Conn) {
	defer c.Close()
	b := pgproto3.NewBackend(c, c)
	start, err := b.ReceiveStartupMessage()
	if err != nil {
		return
	}
	if _, ok := start.(*pgproto3.StartupMessage); !ok {
		f.t.Errorf("a %T came: PgBouncer takes a cancel request for RESUME", start)
		return
	}
	f.mu.Lock()
	f.logins++
	f.mu.Unlock()
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.ParameterStatus{Name: "server_version", Value: "0.0.1/bouncer"})
	b.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{1, 2, 3, 4}})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if b.Flush() != nil {
		return
	}
	for {
		m, err := b.Receive()
		if err != nil {
			return
		}
		q, ok := m.(*pgproto3.Query)
		if !ok {
			return
		}
		f.mu.Lock()
		f.heard = append(f.heard, q.String)
		f.mu.Unlock()
		if !f.answer(q.String, b, c) {
			return
		}
	}
}

func (f *fake) count(statement string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, s := range f.heard {
		if s == statement {
			n++
		}
	}
	return n
}

func (f *fake) dsn() string {
	return "postgres://u:hush@" + f.listener.Addr().String() + "/pgbouncer?sslmode=disable"
}

func (f *fake) console() *pgb.Console {
	f.t.Helper()
	c, err := pgb.Connect(soon(f.t), "fake", parse(f.t, f.dsn()))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(c.Close)
	return c
}

func done(b *pgproto3.Backend, tag string) bool {
	b.Send(&pgproto3.CommandComplete{CommandTag: []byte(tag)})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	return b.Flush() == nil
}

func table(b *pgproto3.Backend, columns string, rows ...string) bool {
	var fields []pgproto3.FieldDescription
	for _, name := range strings.Fields(columns) {
		fields = append(fields, pgproto3.FieldDescription{Name: []byte(name), DataTypeOID: 25})
	}
	b.Send(&pgproto3.RowDescription{Fields: fields})
	for _, row := range rows {
		var values [][]byte
		for _, v := range strings.Fields(row) {
			values = append(values, []byte(v))
		}
		b.Send(&pgproto3.DataRow{Values: values})
	}
	return done(b, "SHOW")
}

func silence(string, *pgproto3.Backend, net.Conn) bool { return true }

func isConsoleError(t *testing.T, err error) {
	t.Helper()
	var console *pgb.ConsoleError
	if !errors.As(err, &console) {
		t.Errorf("%v is no ConsoleError", err)
	}
}

// Whatever tag comes instead of PAUSE, the server connections are counted.
func TestPauseBelievesOnlyItsOwnTag(t *testing.T) {
	for _, tag := range []string{"WAIT_CLOSE", "RESUME", "SHOW", "", "pause", "PAUSED"} {
		t.Run(tag, func(t *testing.T) {
			left := 3
			f := newFake(t, func(statement string, b *pgproto3.Backend, _ net.Conn) bool {
				if statement != "SHOW POOLS" {
					return done(b, tag)
				}
				left--
				return table(b, "database sv_active sv_idle", "app "+string(rune('0'+left))+" 0", "pgbouncer 9 9")
			})
			p := resolveOne(t, pgb.Spec{DSN: f.dsn()})
			if _, err := p.Pause(soon(t)); err != nil {
				t.Fatal(err)
			}
			if n := f.count("SHOW POOLS"); n != 3 {
				t.Errorf("counted %d times", n)
			}
		})
	}
}

// Silence after PAUSE: no cancel request, no other statement than the question what is in the way.
func TestSilenceEndsWithTheContext(t *testing.T) {
	f := newFake(t, silence)
	p := resolveOne(t, pgb.Spec{DSN: f.dsn()})
	ctx, end := context.WithCancel(soon(t))
	defer end()
	paused := run(func() error { _, err := p.Pause(ctx); return err })
	until(t, "PAUSE arrives", func() bool { return f.count("PAUSE") == 1 })
	end()
	wantNotDrained(t, wantDone(t, "pause", paused), -1)
	if n := f.count("RESUME"); n != 0 {
		t.Errorf("%d RESUMEs were sent", n)
	}

	c := f.console()
	if err := c.Send(soon(t), "PAUSE"); err != nil {
		t.Fatal(err)
	}
	short := within(t, 30*time.Millisecond)
	if _, err := c.Receive(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if _, err := c.Receive(soon(t)); err == nil || c.Usable() {
		t.Errorf("a console whose answer is lost goes on: %v", err)
	}
	if err := c.Send(soon(t), "RESUME"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the reason is not told: %v", err)
	}
}

// Half an answer, then silence.
func TestHalfAnAnswer(t *testing.T) {
	f := newFake(t, func(_ string, b *pgproto3.Backend, _ net.Conn) bool {
		b.Send(&pgproto3.CommandComplete{CommandTag: []byte("PAUSE")})
		return b.Flush() == nil
	})
	_, err := f.console().Exec(within(t, 50*time.Millisecond), "PAUSE")
	isConsoleError(t, err)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestGarbage(t *testing.T) {
	for name, bytes := range map[string]string{
		"unknown message": "\x01\x00\x00\x00\x04",
		"short length":    "D\x00\x00\x00\x01",
		"negative length": "D\xff\xff\xff\xff",
		"row of lies":     "D\x00\x00\x00\x0a\x7f\xff\x00\x00\x00\x01",
		"columns of lies": "T\x00\x00\x00\x06\x7f\xff",
		"cut in a header": "C\x00\x00",
		"cut in a body":   "C\x00\x00\x00\x0aPAU",
		"http":            "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
		"nothing":         "",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, func(_ string, _ *pgproto3.Backend, c net.Conn) bool {
				_, _ = io.WriteString(c, bytes)
				return false
			})
			c := f.console()
			ctx := soon(t)
			_, err := c.Exec(ctx, "SHOW POOLS")
			isConsoleError(t, err)
			if ctx.Err() != nil || c.Usable() {
				t.Errorf("%v; usable %v", err, c.Usable())
			}
		})
	}
}

func TestRowsThatDoNotFitTheColumns(t *testing.T) {
	f := newFake(t, func(_ string, b *pgproto3.Backend, _ net.Conn) bool {
		return table(b, "database sv_active paused", "app", "app 1 x surplus", "")
	})
	p := resolveOne(t, pgb.Spec{DSN: f.dsn()})
	if n, err := p.ServerConnections(soon(t)); n != 1 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	if d, err := p.ShowDatabases(soon(t)); len(d) != 3 || err != nil {
		t.Errorf("%v %v", d, err)
	}
	if _, err := p.State(soon(t)); err == nil {
		t.Error("a pooler without server_login_retry has a state")
	} else {
		isConsoleError(t, err)
	}
}

func TestEndlessRows(t *testing.T) {
	f := newFake(t, func(_ string, b *pgproto3.Backend, _ net.Conn) bool {
		b.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("x")}}})
		for {
			for range 1000 {
				b.Send(&pgproto3.DataRow{Values: [][]byte{[]byte("x")}})
			}
			if b.Flush() != nil {
				return false
			}
		}
	})
	ctx := soon(t)
	c := f.console()
	_, err := c.Exec(ctx, "SHOW SERVERS")
	isConsoleError(t, err)
	if ctx.Err() != nil || c.Usable() {
		t.Errorf("%v; usable %v", err, c.Usable())
	}
}

// FATAL ends the connection. A short statement is tried once more on a new one, where the old one was open before.
func TestFatal(t *testing.T) {
	fatal := func(_ string, b *pgproto3.Backend, _ net.Conn) bool {
		b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: "server shutting down"})
		_ = b.Flush()
		return true // it stays open, and nothing more comes
	}
	f := newFake(t, fatal)
	c := f.console()
	_, err := c.Exec(soon(t), "SHOW POOLS")
	var server *pgb.ServerError
	if !errors.As(err, &server) || server.Code != "08P01" || server.Message != "server shutting down" || c.Usable() {
		t.Errorf("%v; usable %v", err, c.Usable())
	}
	p := resolveOne(t, pgb.Spec{DSN: f.dsn()})
	if err := p.Open(soon(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.ServerConnections(soon(t)); !errors.As(err, &server) {
		t.Errorf("%v", err)
	}
	if n := f.count("SHOW POOLS"); n != 3 {
		t.Errorf("asked %d times, want once and twice", n)
	}
	if _, err := p.ServerConnections(soon(t)); !errors.As(err, &server) {
		t.Errorf("%v", err)
	}
	if n := f.count("SHOW POOLS"); n != 4 {
		t.Errorf("a new connection was tried %d times", n-3)
	}
	// In the middle of a PAUSE, after the tag.
	f = newFake(t, func(s string, b *pgproto3.Backend, c net.Conn) bool {
		b.Send(&pgproto3.CommandComplete{CommandTag: []byte("PAUSE")})
		return fatal(s, b, c)
	})
	if _, err := resolveOne(t, pgb.Spec{DSN: f.dsn()}).Pause(soon(t)); !errors.As(err, &server) {
		t.Errorf("%v", err)
	}
}

// Notices and parameters in between are no answers.
func TestAsynchronousMessages(t *testing.T) {
	f := newFake(t, func(_ string, b *pgproto3.Backend, _ net.Conn) bool {
		b.Send(&pgproto3.NoticeResponse{Severity: "NOTICE", Message: "look out"})
		b.Send(&pgproto3.ParameterStatus{Name: "x", Value: "y"})
		return done(b, "PAUSE")
	})
	if result, err := f.console().Exec(soon(t), "PAUSE"); err != nil || result.Tag != "PAUSE" {
		t.Errorf("%+v %v", result, err)
	}
}

// Somebody else who pauses each time: Resume gives up, and says so.
func TestResumeGivesUp(t *testing.T) {
	f := newFake(t, func(statement string, b *pgproto3.Backend, _ net.Conn) bool {
		switch statement {
		case "SHOW CONFIG":
			return table(b, "key value", "server_login_retry 15")
		case "SHOW STATE":
			return table(b, "key value", "paused yes")
		case "SHOW POOLS", "SHOW DATABASES":
			return table(b, "database")
		}
		return done(b, statement)
	})
	was, err := resolveOne(t, pgb.Spec{DSN: f.dsn()}).Resume(soon(t))
	if !was || err == nil || !strings.Contains(err.Error(), "somebody else") {
		t.Errorf("%v %v", was, err)
	}
	if n := f.count("RESUME"); n < 2 || n > 20 {
		t.Errorf("%d times RESUME", n)
	}
}

// The texts of 1.18 to 1.26.
func TestKnownAnswers(t *testing.T) {
	for message, want := range map[string]error{
		"already suspended/paused":       pgb.ErrAlreadyPaused,
		"already paused":                 pgb.ErrAlreadyPaused,
		"pooler is not paused/suspended": pgb.ErrNotPaused,
		"pooler is not paused":           pgb.ErrNotPaused,
		"database app is not paused":     pgb.ErrNotPaused,
	} {
		f := newFake(t, func(_ string, b *pgproto3.Backend, _ net.Conn) bool {
			b.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: "08P01", Message: message})
			b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
			return b.Flush() == nil
		})
		c := f.console()
		if _, err := c.Exec(soon(t), "PAUSE"); !errors.Is(err, want) || !c.Usable() {
			t.Errorf("%s: %v", message, err)
		}
	}
}

// A pooler that answers the login late has to be read through what pgconn has begun to read in the background.
func TestSlowLogin(t *testing.T) {
	f := newFake(t, func(statement string, b *pgproto3.Backend, _ net.Conn) bool {
		if statement != "SHOW VERSION" {
			b.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Message: "invalid command '" + statement + "', use SHOW HELP;"})
			b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
			return b.Flush() == nil
		}
		return done(b, "SHOW")
	})
	cfg := parse(t, f.dsn())
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return &slowWrites{Conn: c}, err
	}
	c, err := pgb.Connect(soon(t), "slow", cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		if _, err := c.Exec(soon(t), "SHOW VERSION"); err != nil {
			t.Fatal(err)
		}
	}
}

// slowWrites makes pgconn start its background reader, which it does after 15 ms in a write.
type slowWrites struct{ net.Conn }

func (c *slowWrites) Write(b []byte) (int, error) {
	<-time.After(40 * time.Millisecond)
	return c.Conn.Write(b)
}
