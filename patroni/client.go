package patroni

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/peer"
)

const (
	bodyLimit   = 1 << 20 // bytes of an answer that are read
	errorLimit  = 300     // bytes of an answer that an error shows
	dialTimeout = time.Second
	callTimeout = 10 * time.Second
)

// Options say how a member's REST API is reached. Only URL is needed.
type Options struct {
	URL      string // http://127.0.0.1:8008; user and password in it count when Username is empty
	Username string // sent with every call, as Basic authentication
	Password string
	CAFile   string // PEM; instead of the system's authorities
	CertFile string // PEM; our certificate, with KeyFile
	KeyFile  string
}

// Client calls one member's REST API. It is safe for concurrent use and needs no closing.
type Client struct {
	base               string
	username, password string
	tls                *tls.Config
}

// New checks the options and reads the files they name. It does not connect.
func New(o Options) (*Client, error) {
	if o.URL == "" {
		return nil, errors.New("patroni: no URL")
	}
	u, err := url.Parse(o.URL)
	if err != nil {
		// url's own error repeats the URL, with a password that may be in it.
		return nil, errors.New("patroni: the URL does not parse; it looks like http://127.0.0.1:8008")
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return nil, fmt.Errorf("patroni: URL %s must be http://HOST:PORT or https://HOST:PORT", u.Redacted())
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("patroni: URL %s must end with the host, port or path", u.Redacted())
	}
	if u.User != nil && o.Username == "" {
		o.Username = u.User.Username()
		if p, ok := u.User.Password(); ok && o.Password == "" {
			o.Password = p
		}
	}
	u.User = nil

	t, err := config.ClientTLS(o.CAFile, o.CertFile, o.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("patroni: %w", err)
	}
	return &Client{base: strings.TrimRight(u.String(), "/"), username: o.Username, password: o.Password, tls: t}, nil
}

// one returns an HTTP client for one call. What it starts ends with ctx, which net/http alone does not do: it
// goes on connecting and shaking hands for a request that was given up, in case that another can use it.
func (c *Client) one(ctx context.Context) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
				conn, err := (&net.Dialer{Timeout: dialTimeout, KeepAlive: -1}).DialContext(ctx, network, addr)
				if err == nil {
					context.AfterFunc(ctx, func() { _ = conn.Close() })
				}
				return conn, err
			},
			TLSClientConfig:        c.tls.Clone(),
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Error is what became of one call.
type Error struct {
	Method, Path string
	StatusCode   int    // 0: no status line came
	Body         string // what the answer said, shortened; empty when there was none
	Connected    bool   // the TCP connection was made
	Err          error  // nil when the status says it all
}

func (e *Error) Error() string {
	s := "patroni: " + e.Method + " " + e.Path + ": "
	switch {
	case e.StatusCode != 0 && e.Err != nil:
		s += fmt.Sprintf("%d, %v", e.StatusCode, e.Err)
	case e.StatusCode != 0:
		s += fmt.Sprintf("%d %s", e.StatusCode, http.StatusText(e.StatusCode))
	case e.Connected && isTimeout(e.Err):
		s += "connected, but no answer in time"
	default:
		s += fmt.Sprint(e.Err)
	}
	if e.Body != "" {
		s += ": " + e.Body
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Unanswered reports whether somebody listens there, and no (whole) answer came: within the time, or
// before the connection was closed. A connection that could not be made *in time* counts too: the
// kernel accepts connections on behalf of a process that has stopped to, until its queue is full
// (Patroni's holds 5, restapi.request_queue_size), and drops the attempts after that; HAProxy's checks fill
// it in seconds. [Error.Connected] tells the two apart. A context that the caller cancelled is not
// an answer to anything and does not count.
func Unanswered(err error) bool {
	var e *Error
	if !errors.As(err, &e) || e.Err == nil || errors.Is(e.Err, context.Canceled) {
		return false
	}
	if isTimeout(e.Err) {
		return true
	}
	return e.Connected && isCut(e.Err)
}

// Unreachable reports whether nobody is there who could be asked: connection refused, no route, no
// such name, or a TLS handshake that failed.
func Unreachable(err error) bool {
	var e *Error
	if !errors.As(err, &e) || e.Err == nil || e.StatusCode != 0 || errors.Is(e.Err, context.Canceled) {
		return false
	}
	if Unanswered(err) {
		return false
	}
	return !e.Connected || isTLS(e.Err)
}

// Unauthorized reports whether Patroni refused the credentials (401) or us altogether (403: allowlist
// or client certificate).
func Unauthorized(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.StatusCode == http.StatusUnauthorized || e.StatusCode == http.StatusForbidden)
}

func isTimeout(err error) bool {
	var n net.Error
	// A name that the resolver did not find in time is not a listener that stays silent.
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return false
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

func isCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE)
}

func isTLS(err error) bool {
	var record tls.RecordHeaderError
	var verify *tls.CertificateVerificationError
	var alert tls.AlertError
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &record) || errors.As(err, &verify) || errors.As(err, &alert) ||
		strings.Contains(err.Error(), "tls: ")
}

// do sends a request without a body, for [callTimeout] at most, and returns the body of an answer whose status is one of want.
func (c *Client) do(ctx context.Context, method, path string, want ...int) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.send(ctx, method, path, nil, want...)
}

// send sends a request, with a body as JSON unless it is nil, and returns the body of an answer whose status is one of want. It is sent
// once: what a cut connection has left undone is the caller's to find out.
func (c *Client) send(ctx context.Context, method, path string, message []byte, want ...int) (int, []byte, error) {
	var connected atomic.Bool // the dial may end after the call
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		ConnectDone: func(_, _ string, err error) {
			if err == nil {
				connected.Store(true)
			}
		},
	})
	fail := func(status int, body []byte, err error) error {
		var u *url.Error
		if err != nil && ctx.Err() != nil {
			err = ctx.Err() // what it broke comes as all kinds of errors
		} else if errors.As(err, &u) {
			err = u.Err // method and path are ours already
		}
		err = peer.Error(err, c.secrets()...) // net/http and encoding/json quote what they did not understand, all of it
		return &Error{Method: method, Path: path, StatusCode: status, Body: c.shorten(body), Connected: connected.Load(), Err: err}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(message))
	if err != nil {
		return 0, nil, fail(0, nil, err)
	}
	if message != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", "pgbaton")
	if c.username != "" {
		req.SetBasicAuth(c.username, c.password)
	}
	res, err := c.one(ctx).Do(req)
	if err != nil {
		return 0, nil, fail(0, nil, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, bodyLimit+1))
	if err != nil {
		return res.StatusCode, nil, fail(res.StatusCode, nil, err)
	}
	if len(body) > bodyLimit {
		return res.StatusCode, nil, fail(res.StatusCode, nil, fmt.Errorf("the answer is longer than %d bytes", bodyLimit))
	}
	for _, w := range want {
		if res.StatusCode == w {
			return res.StatusCode, body, nil
		}
	}
	return res.StatusCode, nil, fail(res.StatusCode, body, nil)
}

// shorten makes an answer fit for a log line.
func (c *Client) shorten(body []byte) string { return sayable(body, c.secrets()...) }

// secrets are what must not be shown: the password, also as it stands in the header of a request, which a peer may repeat.
func (c *Client) secrets() []string {
	if c.password == "" {
		return nil
	}
	return []string{c.password, base64.StdEncoding.EncodeToString([]byte(c.username + ":" + c.password))}
}

// login is a user and password in a URL.
var login = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`://[^/\s"'@]*@`) })

// sayable makes what another program said fit for a log line, without the secrets.
func sayable(body []byte, secrets ...string) string {
	for _, secret := range secrets {
		if secret != "" {
			body = bytes.ReplaceAll(body, []byte(secret), []byte("*****"))
		}
	}
	body = login().ReplaceAll(body, []byte("://*****@"))
	s := peer.Text(strings.Join(strings.Fields(string(body)), " "))
	if len(s) <= errorLimit {
		return s
	}
	return strings.ToValidUTF8(strings.TrimSuffix(s, "…")[:errorLimit], "") + "…"
}
