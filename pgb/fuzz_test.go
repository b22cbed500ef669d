package pgb_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/pgbaton/pgbaton/pgb"
)

// FuzzConsole: whatever bytes come instead of answers, all that a pooler is asked ends, and what is said of them is short, prints and has
// no password in it.
func FuzzConsole(f *testing.F) {
	message := func(messages ...pgproto3.BackendMessage) []byte {
		var all []byte
		for _, m := range messages {
			all, _ = m.Encode(all)
		}
		return all
	}
	row := func(values ...string) *pgproto3.DataRow {
		m := &pgproto3.DataRow{}
		for _, v := range values {
			m.Values = append(m.Values, []byte(v))
		}
		return m
	}
	columns := func(names ...string) *pgproto3.RowDescription {
		m := &pgproto3.RowDescription{}
		for _, n := range names {
			m.Fields = append(m.Fields, pgproto3.FieldDescription{Name: []byte(n), DataTypeOID: 25})
		}
		return m
	}
	ready := &pgproto3.ReadyForQuery{TxStatus: 'I'}
	shown := &pgproto3.CommandComplete{CommandTag: []byte("SHOW")}
	f.Add(
		message(
			columns("key", "value"),
			row("server_login_retry", "15.043"),
			shown,
			ready,
			columns("database", "cl_waiting", "sv_active", "maxwait"),
			row("app", "1", "2", "3"),
			shown,
			ready,
			columns(
				"name",
				"host",
				"port",
				"database",
				"paused",
			),
			row("app", "h", "5432", "app", "1"),
			shown,
			ready,
			columns("key", "value"),
			row("paused", "yes"),
			shown,
			ready,
		),
	)
	f.Add(message(&pgproto3.CommandComplete{CommandTag: []byte("PAUSE")}, ready))
	f.Add(message(&pgproto3.ErrorResponse{Severity: "ERROR", Code: "08P01", Message: "already paused"}, ready))
	f.Add(message(&pgproto3.ErrorResponse{Severity: "FATAL", Message: "password=" + secret + "\x1b[31m"}))
	f.Add(message(&pgproto3.NoticeResponse{Message: "x"}, &pgproto3.ParameterStatus{Name: "a", Value: "b"}, row("a"), ready))
	f.Add([]byte{'D', 0, 0, 0, 6, 0xff, 0xff, 'Z', 0, 0, 0, 5, 'I'})
	f.Add([]byte{'T', 0, 0, 0, 4, 'D', 0xff, 0xff, 0xff, 0xff})

	f.Fuzz(func(t *testing.T, answer []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		config := parse(t, "host=192.0.2.1 user=u dbname=pgbouncer sslmode=disable password="+secret)
		var servers sync.WaitGroup
		config.DialFunc = func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			servers.Go(func() {
				defer theirs.Close()
				b := pgproto3.NewBackend(theirs, theirs)
				if _, err := b.ReceiveStartupMessage(); err != nil {
					return
				}
				b.Send(&pgproto3.AuthenticationOk{})
				b.Send(ready)
				if b.Flush() != nil {
					return
				}
				if _, err := b.Receive(); err == nil {
					go func() { // a pipe has no buffer: further statements have to be taken while the answer is written
						for err == nil {
							_, err = b.Receive()
						}
					}()
					_, _ = theirs.Write(answer)
				}
			})
			return ours, nil
		}
		p := pgb.PoolerOf("fake", config)
		state, err := p.State(ctx)
		_, err2 := p.Settings(ctx)
		_, err3 := p.Pause(ctx)
		p.Close()
		servers.Wait()
		if ctx.Err() != nil {
			t.Error("it did not end")
		}
		text := fmt.Sprint(state.Version, " ", err, " ", err2, " ", err3)
		if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || strings.Contains(text, secret) ||
			len(text) > 4000 {
			t.Errorf("%q", text)
		}
		for _, err := range []error{err, err2, err3} {
			var console *pgb.ConsoleError
			var drained *pgb.NotDrainedError
			if err != nil && !errors.As(err, &console) && !errors.As(err, &drained) {
				t.Errorf("%T: %v", err, err)
			}
		}
	})
}
