// Package hostile has servers that do harm, in PostgreSQL's protocol and in HTTP: they lie, they send too much, too slowly or nothing, and
// types that do not fit. They are fakes because no real server does that. The clients of PgBouncer's console, of PostgreSQL and of Patroni
// are tried on all of theirs, each in a process of its own, whose memory is measured.
package hostile

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Password is what the clients log in with. Nothing that they say may have it in it.
const Password = "s3cret-of-the-client"

// Case is one way to do harm.
type Case struct {
	Name   string
	login  func(s *session) bool // nil: as it should be; false: it was the harm
	answer func(s *session)
}

type session struct {
	net.Conn
	*pgproto3.Backend
}

func (s *session) flush() bool { return s.Flush() == nil }

// forever repeats what send queues until the client has gone.
func (s *session) forever(send func(i int)) {
	for i := 0; ; i++ {
		send(i)
		if i%100 == 99 && !s.flush() {
			return
		}
	}
}

func (s *session) raw(text string) bool {
	_, err := io.WriteString(s.Conn, text)
	return err == nil
}

func message(kind byte, length uint32, body string) string {
	var head [5]byte
	head[0] = kind
	binary.BigEndian.PutUint32(head[1:], length)
	return string(head[:]) + body
}

func (s *session) ready() { s.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'}) }

func (s *session) columns(names ...string) {
	m := &pgproto3.RowDescription{}
	for _, name := range names {
		m.Fields = append(m.Fields, pgproto3.FieldDescription{Name: []byte(name), DataTypeOID: 25})
	}
	s.Send(m)
}

func (s *session) row(values ...string) {
	m := &pgproto3.DataRow{}
	for _, v := range values {
		m.Values = append(m.Values, []byte(v))
	}
	s.Send(m)
}

// known are columns of all statements that are asked, so that some of them find theirs.
var known = []string{"key", "value", "default", "changeable", "name", "host", "port", "database", "paused", "disabled", "pool_size",
	"cl_waiting", "sv_active", "maxwait", "maxwait_us", "state", "remote_pid"}

func (s *session) odd(value string) {
	s.columns(known...)
	for _, key := range []string{"server_login_retry", "paused", "port", value} {
		row := []string{key}
		for range len(known) - 1 {
			row = append(row, value)
		}
		s.row(row...)
	}
	s.Send(&pgproto3.CommandComplete{CommandTag: []byte(value)})
	s.ready()
	s.flush()
}

// told is an error that tells a password, turns the terminal's colours and is as long as a message may be.
func told(n int) *pgproto3.ErrorResponse {
	text := "\x1b[31m\x1b]0;owned\x07\r\n\u202eno\u009b31m password=" + Password + " postgres://u:" +
		Password + "@h/ " + Password + "\xff\xfe "
	return &pgproto3.ErrorResponse{Severity: "ERROR", Code: text, Message: text + strings.Repeat("x", n),
		Detail: text, Hint: text, Routine: text}
}

// Cases are all of them.
func Cases() []Case {
	oddValue := func(value string) func(*session) { return func(s *session) { s.odd(value) } }
	return []Case{
		{Name: "login/silence", login: func(s *session) bool { _, _ = io.Copy(io.Discard, s.Conn); return false }},
		{Name: "login/closed", login: func(s *session) bool { return false }},
		{Name: "login/garbage", login: func(s *session) bool { s.raw(strings.Repeat("HTTP/1.1 400 Bad Request\r\n", 1000)); return false }},
		{Name: "login/negative length", login: func(s *session) bool { s.raw(message('R', 0xffffffff, "")); return false }},
		{Name: "login/2 GiB message", login: func(s *session) bool {
			for ok := s.raw(message('E', 0x7fffffff, "SERROR\x00")); ok; ok = s.raw(strings.Repeat("M", 1<<16)) {
			}
			return false
		}},
		{Name: "login/long error", login: func(s *session) bool { s.Send(told(900 << 10)); s.flush(); return false }},
		{Name: "login/parameters", login: func(s *session) bool {
			s.Send(&pgproto3.AuthenticationOk{})
			s.forever(func(i int) { s.Send(&pgproto3.ParameterStatus{Name: fmt.Sprint(i), Value: "x"}) })
			return false
		}},
		{Name: "login/notices", login: func(s *session) bool {
			s.forever(func(int) { s.Send(&pgproto3.NoticeResponse{Severity: "NOTICE", Message: strings.Repeat("x", 5000)}) })
			return false
		}},
		{Name: "login/drip", login: func(s *session) bool {
			for ok := true; ok; ok = s.raw("N") {
				time.Sleep(20 * time.Millisecond)
			}
			return false
		}},
		{Name: "login/password repeated", login: func(s *session) bool {
			s.Send(&pgproto3.AuthenticationCleartextPassword{})
			s.flush()
			_ = s.SetAuthType(pgproto3.AuthTypeCleartextPassword)
			m, err := s.Receive()
			if err != nil {
				return false
			}
			if p, ok := m.(*pgproto3.PasswordMessage); ok {
				s.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28P01", Message: "wrong: " + p.Password})
			}
			s.flush()
			return false
		}},
		{Name: "login/ten million hashes", login: func(s *session) bool {
			s.Send(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256"}})
			s.flush()
			_ = s.SetAuthType(pgproto3.AuthTypeSASL)
			m, err := s.Receive()
			first, ok := m.(*pgproto3.SASLInitialResponse)
			if err != nil || !ok {
				return false
			}
			_, nonce, _ := strings.Cut(string(first.Data), "r=")
			s.Send(&pgproto3.AuthenticationSASLContinue{Data: []byte("r=" + nonce + "x,s=c2FsdHNhbHRzYWx0,i=9999999")})
			s.flush()
			_, _ = io.Copy(io.Discard, s.Conn)
			return false
		}},
		{Name: "login/unknown authentication", login: func(s *session) bool { s.raw(message('R', 8, "\x00\x00\x00\x63")); return false }},
		{Name: "login/long version", login: func(s *session) bool {
			s.Send(&pgproto3.AuthenticationOk{})
			s.Send(&pgproto3.ParameterStatus{Name: "server_version", Value: "1.24.1\x1b[31m" + Password + strings.Repeat("x", 500<<10)})
			return true
		}, answer: oddValue("1")},

		{Name: "silence", answer: func(s *session) { _, _ = io.Copy(io.Discard, s.Conn) }},
		{Name: "half an answer", answer: func(s *session) { s.columns(known...); s.row("server_login_retry", "15"); s.flush() }},
		{Name: "drip", answer: func(s *session) {
			s.columns(known...)
			s.flush()
			for ok := true; ok; {
				time.Sleep(20 * time.Millisecond)
				s.row("server_login_retry", "15")
				ok = s.flush()
			}
		}},
		{Name: "long error", answer: func(s *session) { s.Send(told(900 << 10)); s.ready(); s.flush() }},
		{Name: "20 MB error", answer: func(s *session) { s.raw(message('E', 20<<20, "SERROR\x00M"+strings.Repeat("x", 21<<20))) }},
		{Name: "fatal", answer: func(s *session) {
			m := told(1000)
			m.Severity = "FATAL"
			s.Send(m)
			s.flush()
		}},
		{Name: "errors without end", answer: func(s *session) { s.forever(func(int) { s.Send(told(5000)) }) }},
		{Name: "rows without end", answer: func(s *session) {
			s.columns(known...)
			s.forever(func(i int) { s.row("server_login_retry", fmt.Sprint(i)) })
		}},
		{Name: "long rows", answer: func(s *session) {
			s.columns(known...)
			long := strings.Repeat("x", 900<<10)
			s.forever(func(int) { s.row(long); s.flush() })
		}},
		{Name: "empty rows", answer: func(s *session) { s.columns(known...); s.forever(func(int) { s.row() }) }},
		{Name: "60000 columns", answer: func(s *session) {
			s.columns(known...)
			m := &pgproto3.DataRow{Values: make([][]byte, 60000)}
			s.forever(func(int) { s.Send(m); s.flush() })
		}},
		{Name: "250 columns", answer: func(s *session) {
			s.columns(known...)
			m := &pgproto3.DataRow{Values: make([][]byte, 250)}
			s.forever(func(int) { s.Send(m) })
		}},
		{Name: "descriptions", answer: func(s *session) { s.forever(func(int) { s.columns(known...) }) }},
		{Name: "many columns", answer: func(s *session) {
			s.columns(strings.Split(strings.Repeat("a ", 60000), " ")...)
			s.flush()
			s.row("a")
			s.Send(&pgproto3.CommandComplete{CommandTag: []byte("SHOW")})
			s.ready()
			s.flush()
		}},
		{Name: "results without end", answer: func(s *session) {
			s.forever(func(int) { s.Send(&pgproto3.CommandComplete{CommandTag: []byte("PAUSE")}) })
		}},
		{Name: "empty results", answer: func(s *session) { s.forever(func(int) { s.Send(&pgproto3.EmptyQueryResponse{}) }) }},
		{Name: "parameters", answer: func(s *session) {
			s.forever(func(i int) { s.Send(&pgproto3.ParameterStatus{Name: fmt.Sprint(i), Value: "x"}) })
		}},
		{Name: "notices", answer: func(s *session) { s.forever(func(int) { s.Send(&pgproto3.NoticeResponse{Message: "x"}) }) }},
		{Name: "notifications", answer: func(s *session) {
			s.forever(func(int) { s.Send(&pgproto3.NotificationResponse{Channel: "c", Payload: strings.Repeat("x", 5000)}) })
		}},
		{Name: "ready without end", answer: func(s *session) { s.forever(func(int) { s.ready() }) }},
		{Name: "row before its description", answer: func(s *session) { s.row("server_login_retry", "15"); s.ready(); s.flush() }},
		{Name: "cut row", answer: func(s *session) { s.columns(known...); s.flush(); s.raw(message('D', 10, "\x00\x09\x00\x00\x00\xff")) }},
		{Name: "unknown type", answer: func(s *session) { s.raw(message('?', 4, "")) }},
		{Name: "copy", answer: func(s *session) {
			s.Send(&pgproto3.CopyOutResponse{})
			s.forever(func(int) { s.Send(&pgproto3.CopyData{Data: make([]byte, 5000)}) })
		}},
		{Name: "copy in", answer: func(s *session) { s.Send(&pgproto3.CopyInResponse{}); s.flush() }},
		{Name: "nothing", answer: func(s *session) { s.ready(); s.flush() }},
		{Name: "words for numbers", answer: oddValue("many")},
		{Name: "empty words", answer: oddValue("")},
		{Name: "large numbers", answer: oddValue("99999999999999999999999999")},
		{Name: "small numbers", answer: oddValue("-9223372036854775808")},
		{Name: "no number", answer: oddValue("NaN")},
		{Name: "endless number", answer: oddValue("1e400")},
		{Name: "controls", answer: oddValue("\x1b[2J\x1b]0;owned\x07\r\n\x00\u202e\u009b31m\xff")},
		{Name: "secrets", answer: func(s *session) { s.odd("password=" + Password) }},
	}
}

// Serve starts the server of a case on 127.0.0.1 and returns its address. It ends with the test.
func (c Case) Serve(t *testing.T) *net.TCPAddr {
	t.Helper()
	return listen(t, func(conn net.Conn) { c.serve(&session{conn, pgproto3.NewBackend(conn, conn)}) })
}

// listen serves each connection to a port of 127.0.0.1 in a goroutine of its own. All end with the test.
func listen(t *testing.T, serve func(net.Conn)) *net.TCPAddr {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			all.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().(*net.TCPAddr)
}

func (c Case) serve(s *session) {
	if _, err := s.ReceiveStartupMessage(); err != nil {
		return
	}
	if c.login != nil {
		if !c.login(s) {
			return
		}
	} else {
		s.Send(&pgproto3.AuthenticationOk{})
		s.Send(&pgproto3.ParameterStatus{Name: "server_version", Value: "1.24.1/bouncer"})
	}
	s.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{1, 2, 3, 4}})
	s.ready()
	for s.flush() {
		m, err := s.Receive()
		if err != nil {
			return
		}
		if _, ok := m.(*pgproto3.Query); !ok {
			return
		}
		c.answer(s)
	}
}
