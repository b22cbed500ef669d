package hostile

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// httpCase is one way to do harm with an answer over HTTP.
type httpCase struct {
	name  string
	serve func(*testing.T) net.Addr
}

// patroniAnswer is what Patroni's GET /leader, /cluster and /config answer, as one object:
// each path finds its own keys.
const patroniAnswer = `{"state": "running", "role": "primary", "server_version": 170005, "timeline": 3, "dcs_last_seen": 1763719200,
	"pending_restart": true, "pending_restart_reason": {"max_connections": {"old_value": "100", "new_value": "101"}},
	"database_system_identifier": "7574", "patroni": {"version": "4.0.7", "scope": "demo", "name": "m1"},
	"scope": "demo", "members": [
		{"name": "m1", "role": "leader", "state": "running", "host": "127.0.0.1", "port": 5432, "timeline": 3, "lag": 0}],
	"ttl": 30, "loop_wait": 10, "postgresql": {"parameters": {"max_connections": 100}}}`

// login is what a client with the user "u" sends in its header.
const login = "dTpzM2NyZXQtb2YtdGhlLWNsaWVudA==" // base64 of u:Password

// httpCases are all of them.
func httpCases() []httpCase {
	var cases []httpCase
	raw := func(name string, serve func(net.Conn)) {
		cases = append(cases, httpCase{name, func(t *testing.T) net.Addr {
			return listen(t, func(conn net.Conn) {
				request := make([]byte, 4096)
				if _, err := conn.Read(request); err == nil {
					serve(conn)
				}
			})
		}})
	}
	send := func(conn net.Conn, text string) bool {
		_, err := io.WriteString(conn, text)
		return err == nil
	}
	forever := func(first, again string) func(net.Conn) {
		return func(conn net.Conn) {
			for ok := send(conn, first); ok; ok = send(conn, again) {
			}
		}
	}
	drip := func(first string) func(net.Conn) {
		return func(conn net.Conn) {
			for ok := send(conn, first); ok; ok = send(conn, " ") {
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
	hang := func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
	body := func(name string, status int, text string) {
		raw(name, func(conn net.Conn) {
			send(conn, fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Length: %d\r\n\r\n%s", status, http.StatusText(status), len(text), text))
		})
	}
	const head = "HTTP/1.1 200 OK\r\n"
	long := strings.Repeat("x", 60<<10)

	raw("silence", hang)
	raw("closed", func(net.Conn) {})
	raw("garbage", forever("\x16\x03\x01\x02", "\x00\xff\x1b[31m"))
	raw("PostgreSQL", forever("E\x00\x00\x00\x20SFATAL\x00C0A000\x00Mno\x00\x00", "E"))
	raw("status without end", forever("HTTP/1.1 200 ", long))
	raw("no status", func(conn net.Conn) { send(conn, "HTTP/1.1 \x1b[31m "+Password+"\r\n\r\n") })
	raw("status 0", func(conn net.Conn) { send(conn, "HTTP/1.1 000 \x1b[31m\r\n\r\n") })
	raw("headers without end", forever(head, "X: x\r\n"))
	raw("long header", forever(head+"X: ", long))
	raw("drip in the headers", drip(head+"X: "))
	raw("drip in the body", drip(head+"\r\n"))
	raw("drip in chunks", drip(head+"Transfer-Encoding: chunked\r\n\r\n1;"))
	raw("half a body", func(conn net.Conn) { send(conn, head+"Content-Length: 5000\r\n\r\n{"); hang(conn) })
	raw("cut", func(conn net.Conn) { send(conn, head+"Content-Length: 5000\r\n\r\n{\"state\": \"runn") })
	raw("early hints without end", forever("", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"))
	raw("switching protocols", forever("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", long))
	raw("body without end", forever(head+"\r\n", long))
	raw("error without end", forever("HTTP/1.1 500 no\r\n\r\n", "\x1b[31m"+Password+"\n"))
	raw("2 GiB body", forever(head+"Content-Length: 2147483647\r\n\r\n", long))
	raw("negative length", func(conn net.Conn) { send(conn, head+"Content-Length: -1\r\n\r\n{}") })
	raw("two lengths", func(conn net.Conn) { send(conn, head+"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x") })
	raw("chunks without end", forever(head+"Transfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n"))
	raw("large chunk", forever(head+"Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n", long))
	raw("chunk extensions", forever(head+"Transfer-Encoding: chunked\r\n\r\n1;", long))
	raw("trailers without end", forever(head+"Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\n{}\r\n0\r\n", "X: "+long+"\r\n"))
	raw("redirect to itself", func(conn net.Conn) {
		send(conn, "HTTP/1.1 302 Found\r\nLocation: /leader\r\nContent-Length: 0\r\n\r\n")
	})
	raw("redirect with a long address", func(conn net.Conn) {
		send(conn, "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://"+strings.Repeat("x", 50<<10)+"\r\n\r\n")
	})
	raw("gzip of a large body", func(conn net.Conn) {
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		for range 1 << 10 {
			_, _ = w.Write(make([]byte, 1<<20))
			if packed.Len() > 300<<10 {
				break
			}
		}
		_ = w.Close()
		send(conn, fmt.Sprintf(head+"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", packed.Len(), packed.String()))
	})

	told := "\x1b[31m\x1b]0;owned\x07\r\n\u202eno\u009b31m password=" + Password + " postgres://u:" + Password + "@h/ \xff"
	body("long error", 500, told+strings.Repeat("x", 900<<10))
	body("teapot", 418, told)
	body("secrets", 503, "Authorization: Basic "+Password+" "+told)
	// As a debugging proxy does.
	raw("its own request", func(conn net.Conn) {
		send(conn, fmt.Sprintf("HTTP/1.1 500 no\r\nContent-Length: %d\r\n\r\nyou sent %s", len(login)+9, login))
	})
	body("its own credentials", 200, strings.Replace(patroniAnswer, "m1", login, 1))
	var distinct strings.Builder
	for i := range 80 << 10 {
		fmt.Fprintf(&distinct, `"%d":{},`, i)
	}
	for _, x := range []struct{ name, text string }{
		{"empty", ""}, {"null", "null"}, {"a list", "[]"}, {"a number", "1e400"}, {"a text", `"` + long + `"`},
		{"two values", patroniAnswer + patroniAnswer}, {"deep lists", strings.Repeat("[", 500<<10)},
		{"deep objects", strings.Repeat(`{"members":`, 90<<10)}, {"many keys", "{" + strings.Repeat(`"a":[],`, 140<<10) + `"members": []}`},
		{"many lists", `{"ttl": 30, "x": [` + strings.Repeat("[],", 340<<10) + `[]]}`},
		{"many members", `{"members": [` + strings.Repeat("{},", 340<<10) + `{}]}`},
		{"many reasons", `{"state": "running", "patroni": {}, "pending_restart_reason": {` + distinct.String() + `"b":{}}}`},
		{"many tags", `{"members": [{"tags": {` + distinct.String() + `"b":{}}}]}`},
		{"many settings", `{"postgresql": {"parameters": {` + distinct.String() + `"b":{}}}}`},
		{"a long name", strings.Replace(patroniAnswer, "m1", strings.Repeat("m", 900<<10), 1)},
	} {
		body(x.name, 200, x.text)
	}
	// Each value of the answer becomes each of these.
	digits := strings.Repeat("9", 400<<10)
	for kind, odd := range map[string]string{
		"null": "null", "true": "true", "a list": "[]", "an object": "{}", "a negative number": "-9223372036854775808", "a fraction": "1.5",
		"a large number": "1e308", "digits": digits, "digits as text": `"` + digits + `"`, "controls": jsonText(told),
		"an empty text": `""`,
	} {
		for _, key := range []string{"state", "role", "server_version", "timeline", "dcs_last_seen", "pending_restart",
			"pending_restart_reason",
			"database_system_identifier", "patroni", "version", "scope", "name", "members", "host", "port", "lag", "ttl", "loop_wait",
			"postgresql", "max_connections", "old_value", "scheduled_switchover", "at", "tags", "api_url"} {
			body(key+" is "+kind, 200, replaced(key, odd))
		}
	}
	return cases
}

// replaced is patroniAnswer with another value of a key, wherever it stands.
func replaced(key, odd string) string {
	switch key {
	case "scheduled_switchover":
		return strings.Replace(patroniAnswer, `"ttl"`, `"scheduled_switchover": `+odd+`, "ttl"`, 1)
	case "at":
		return strings.Replace(patroniAnswer, `"ttl"`, `"scheduled_switchover": {"at": `+odd+`, "from": `+odd+`}, "ttl"`, 1)
	case "tags", "api_url":
		return strings.Replace(patroniAnswer, `"lag"`, `"`+key+`": `+odd+`, "lag"`, 1)
	}
	var out strings.Builder
	rest := patroniAnswer
	for {
		before, after, found := strings.Cut(rest, `"`+key+`": `)
		out.WriteString(before)
		if !found {
			return out.String()
		}
		out.WriteString(`"` + key + `": ` + odd)
		rest = after[valueEnd(after):]
	}
}

// valueEnd is where the JSON value at the beginning of a text ends.
func valueEnd(text string) int {
	depth := 0
	for i, c := range text {
		switch c {
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth < 0 {
				return i
			}
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
	return len(text)
}

// jsonText writes a text as JSON has it, bytes that are no UTF-8 as they are.
func jsonText(text string) string {
	var out strings.Builder
	out.WriteByte('"')
	for i := range len(text) {
		switch c := text[i]; {
		case c < ' ' || c == '"' || c == '\\':
			fmt.Fprintf(&out, `\u%04x`, c)
		default:
			out.WriteByte(c)
		}
	}
	out.WriteByte('"')
	return out.String()
}
