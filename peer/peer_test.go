package peer_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"pgregory.net/rapid"

	"github.com/pgbaton/pgbaton/peer"
)

func TestText(t *testing.T) {
	const secret = "s3cret+word"
	for in, want := range map[string]string{
		"":                                              "",
		"pooler is not paused":                          "pooler is not paused",
		"Größe: 5 µs, 数据库":                              "Größe: 5 µs, 数据库",
		"two\nlines\tand more":                          "two lines and more",
		"\x1b[31mred\x07\x00\x7f\u009b1m":               "?[31mred????1m",
		"\u202eturned\u2066\ufeff":                      "?turned??",
		"no \xff UTF-8":                                 "no ? UTF-8",
		"you said " + secret + "!":                      "you said ***!",
		"host=h password=abc user=u":                    "host=h password=*** user=u",
		"password = 'a b' port=1":                       "password = *** port=1",
		`{"password": "a\"b", "x": 1}`:                  `{"password": ***, "x": 1}`,
		"PGPASSWORD=abc":                                "PGPASSWORD=***",
		"sslpassword=abc":                               "sslpassword=***",
		"token: abc":                                    "token: ***",
		"postgres://u:p@ss@h:5432/d":                    "postgres://u:***@h:5432/d",
		"password authentication failed for user \"u\"": "password authentication failed for user \"u\"",
		"Authorization: Basic dTpwYXNz\nHost: h":        "Authorization: *** Host: h",
		`{"authorization": "Bearer abc.def", "x": 1}`:   `{"authorization": ***, "x": 1}`,
		"authorization: abc":                            "authorization: ***",
		`"u" "SCRAM-SHA-256$4096:c2FsdA==$a:b" x`:       `"u" "***" x`,
		"md5" + strings.Repeat("0a", 16) + " in auth":   "*** in auth",
		"SCRAM-SHA-256 authentication, md5 is off":      "SCRAM-SHA-256 authentication, md5 is off",
		"passwords: never in logs":                      "passwords: never in logs",
	} {
		if got := peer.Text(in, secret, ""); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestTextOfAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.StringMatching(`[a-z0-9]{4,12}`).Draw(t, "secret")
		in := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
			rapid.Map(rapid.IntRange(0, 40000), func(n int) string { return strings.Repeat("ä", n/2) })).Draw(t, "text")
		got := peer.Text(in+secret+in, secret)
		if len(got) > peer.MaxText || !utf8.ValidString(got) ||
			strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q", got)
		}
		if strings.Contains(got, secret) && !strings.Contains(in, secret) {
			t.Errorf("the secret is in %q", got)
		}
	})
}

func TestError(t *testing.T) {
	if peer.Error(nil) != nil {
		t.Error("of nothing")
	}
	cause := &pgconn.PgError{Severity: "FATAL", Code: "28P01", Message: "no\x1b " + strings.Repeat("x", 1000)}
	err := peer.Error(cause)
	var server *pgconn.PgError
	if !errors.As(err, &server) || server.Code != "28P01" || len(err.Error()) > peer.MaxText || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("%v", err)
	}
}

// bounded is a frontend as pgconn gets it, reading what the peer sends.
func bounded(t testing.TB, from io.Reader) *pgproto3.Frontend {
	config, err := pgconn.ParseConfig("host=127.0.0.1 user=u dbname=d")
	if err != nil {
		t.Fatal(err)
	}
	peer.Bound(config)
	return config.BuildFrontend(from, io.Discard)
}

func encode(t testing.TB, messages ...pgproto3.BackendMessage) []byte {
	var all []byte
	for _, m := range messages {
		var err error
		if all, err = m.Encode(all); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// Every message comes through, however the bytes are cut.
func TestBoundPassesOn(t *testing.T) {
	messages := []pgproto3.BackendMessage{
		&pgproto3.AuthenticationOk{},
		&pgproto3.ParameterStatus{Name: "a", Value: "b"},
		&pgproto3.ReadyForQuery{TxStatus: 'I'},
		&pgproto3.RowDescription{
			Fields: []pgproto3.FieldDescription{{Name: []byte("n")}},
		},
		&pgproto3.DataRow{Values: [][]byte{[]byte("v"), nil}},
		&pgproto3.DataRow{},
		&pgproto3.EmptyQueryResponse{},
		&pgproto3.CommandComplete{CommandTag: []byte("SHOW")},
		&pgproto3.ReadyForQuery{TxStatus: 'I'},
		&pgproto3.AuthenticationSASLContinue{Data: []byte("r=x,s=y,i=4096")},
	}
	text := encode(t, messages...)
	for name, from := range map[string]io.Reader{"at once": bytes.NewReader(text), "bytes": iotest.OneByteReader(bytes.NewReader(text)),
		"halves": iotest.HalfReader(bytes.NewReader(text))} {
		f := bounded(t, from)
		var again []byte
		for range messages {
			m, err := f.Receive()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			again = append(again, encode(t, m)...)
		}
		if !bytes.Equal(text, again) {
			t.Errorf("%s: other messages", name)
		}
	}
}

func TestBound(t *testing.T) {
	ready := encode(t, &pgproto3.ReadyForQuery{TxStatus: 'I'})
	row := func(columns, length int) []byte {
		m := &pgproto3.DataRow{}
		for range columns {
			m.Values = append(m.Values, make([]byte, length))
		}
		return encode(t, m)
	}
	for name, c := range map[string]struct {
		begin, again []byte
		want         string // "": 10,000 of them are taken
	}{
		"log-in": {nil, encode(t, &pgproto3.ParameterStatus{Name: "a", Value: "b"}),
			"a log-in of more than 1048576 bytes"},
		"answer of long rows":  {ready, row(4, 10000), "an answer"},
		"answer of short rows": {ready, row(200, 0), "an answer"},
		"answer of messages":   {ready, encode(t, &pgproto3.NoticeResponse{Message: strings.Repeat("x", 2000)}), "an answer"},
		"rows of many columns": {ready, row(257, 0), "a row of more than 256 columns"},
		"a message":            {ready, row(1, 1<<20), "a message of more than 1048576 bytes"},
		"hashes": {nil, encode(t, &pgproto3.AuthenticationSASLContinue{Data: []byte("r=x,s=y,i=1000001")}),
			"a password hash"},
		"no number of hashes": {nil, encode(t,
			&pgproto3.AuthenticationSASLContinue{Data: []byte("r=x,s=y,i=99999999999999999999")}), "a password hash"},
		"SHOW SERVERS of a large pooler": {ready, row(32, 8), ""},
		"many answers":                   {nil, append(row(100, 100), ready...), ""},
	} {
		t.Run(name, func(t *testing.T) {
			pieces := []io.Reader{bytes.NewReader(c.begin)}
			for range 10000 {
				pieces = append(pieces, bytes.NewReader(c.again))
			}
			f := bounded(t, io.MultiReader(pieces...))
			var err error
			for err == nil {
				_, err = f.Receive()
			}
			var limit *peer.LimitError
			if c.want == "" {
				if errors.As(err, &limit) {
					t.Error(err)
				}
			} else if !errors.As(err, &limit) || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}
