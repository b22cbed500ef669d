package httpapi

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/member"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/operation"
)

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func TestTokens(t *testing.T) {
	a := start(t, &fake{}, func(c *config.Config, _ *Options) {
		sum := sha256.Sum256([]byte(gonePassword))
		writeText(
			t,
			c.Serve.TokensFile,
			"# who may\n\nviewer read "+readToken+"\noperator read,operate "+operateToken+"\nhashed operate sha256:"+hex.EncodeToString(
				sum[:],
			)+"\n",
		)
	})
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/openapi.json", "/openapi.yaml"} {
		if got := a.do("GET", path, "", "Authorization: Bearer nonsense"); got.status != 200 {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	for token, want := range map[string][2]int{
		readToken: {200, 403}, operateToken: {200, 200}, gonePassword: {200, 200},
		readToken + "x": {401, 401}, "x": {401, 401}, "": {401, 401}, strings.Repeat("x", 3000): {401, 401},
	} {
		a.token = token
		if got := a.do("GET", "/v1/status", ""); got.status != want[0] {
			t.Errorf("%.30s: %d", token, got.status)
		}
		got := a.do("POST", "/v1/pgbouncer/resume", "")
		if got.status != want[1] {
			t.Errorf("%.30s: %d %s", token, got.status, got.body)
		}
		if got.status >= 400 {
			got.problem(t)
			if !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Bearer ") {
				t.Errorf("%v", got.header)
			}
		}
	}
	a.token = ""
	for _, header := range []string{"Basic b3BlcmF0b3I6eA==", "Bearer", operateToken, "Bearer  ", "bearer\t" + operateToken} {
		a.expect(a.do("GET", "/v1/status", "", "Authorization: "+header), 401, "unauthenticated")
	}
	a.expect(a.do("GET", "/v1/status", "", "Authorization: bearer "+readToken), 200, "")
}

// TestTokenRemoved: within 2 s it is refused, a stream that it has opened ends, and what cannot be read allows nobody.
func TestTokenRemoved(t *testing.T) {
	a := start(t, &fake{pause: held(nil)}, nil)
	path := a.do("POST", "/v1/pgbouncer/pause", "").operation(t).Path() + "/events"
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.do("GET", path, "")
	}()
	eventually(t, "the stream is open", func() bool { return len(a.server.streams) == 1 })
	gone := func(what string) {
		t.Helper()
		began := time.Now()
		eventually(t, what, func() bool { return a.do("GET", "/v1/status", "").status == 401 })
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: after %s", what, took)
		}
	}
	back := func() {
		t.Helper()
		writeText(t, a.config.Serve.TokensFile, "viewer read "+readToken+"\noperator operate "+operateToken+"\n")
		eventually(t, "allowed again", func() bool { return a.do("GET", "/v1/status", "").status == 200 })
	}
	began := time.Now()
	writeText(t, a.config.Serve.TokensFile, "viewer read "+readToken+"\n")
	gone("removed")
	<-ended
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the stream ended after %s", took)
	}
	back()
	// As the kubelet changes a mounted secret.
	next := filepath.Join(filepath.Dir(a.config.Serve.TokensFile), "next")
	writeText(t, next, "viewer read "+readToken+"\n")
	if err := os.Rename(next, a.config.Serve.TokensFile); err != nil {
		t.Fatal(err)
	}
	gone("replaced")
	back()
	if err := os.Remove(a.config.Serve.TokensFile); err != nil {
		t.Fatal(err)
	}
	gone("the file is gone")
	a.expect(a.do("GET", "/readyz", ""), 503, "not-ready")
	back()
	a.expect(a.do("GET", "/readyz", ""), 200, "")
	// One broken line is not the end of the others.
	writeText(t, a.config.Serve.TokensFile, "operator operate short\nviewer read "+readToken+"\n")
	gone("broken")
	a.token = readToken
	a.expect(a.do("GET", "/v1/status", ""), 200, "")
	if !strings.Contains(a.out.String(), "line 1: the token has fewer than 16 characters") {
		t.Error("nothing is said of the line")
	}
}

func TestParseTokens(t *testing.T) {
	for text, want := range map[string]string{
		"a read":                              "line 1: is not NAME SCOPE TOKEN",
		"a read 0123456789abcdef x":           "line 1: is not NAME SCOPE TOKEN",
		"\n#\na write 0123456789abcdef":       "line 3: a scope is neither read nor operate",
		"a read, 0123456789abcdef":            "line 1: a scope is neither read nor operate",
		"a read sha256:00":                    "line 1: behind sha256: must be 64 hexadecimal digits",
		"ä read 0123456789abcdef":             "line 1: the name has more than 64 characters, or characters that are not allowed",
		"a read " + strings.Repeat("x", 2000): "line 1: the token has more than 1024 characters",
	} {
		tokens, err := parseTokens([]byte(text))
		if err == nil || err.Error() != want || len(tokens) != 0 {
			t.Errorf("%q: %v %v", text, err, tokens)
		}
	}
	if tokens, err := parseTokens(
		[]byte(strings.Repeat("a read 0123456789abcdef\n", maxTokens+2)),
	); err == nil ||
		len(tokens) != maxTokens {
		t.Errorf("%d %v", len(tokens), err)
	}
}

// TestConstantTime: how long a token is looked for tells neither whether it is known, nor which one it is, nor how much of it is right.
func TestConstantTime(t *testing.T) {
	const prefix = "0123456789abcdefghij" // 20 characters
	var text strings.Builder
	for i := range maxTokens {
		fmt.Fprintf(&text, "n%d operate %s-%04d-secret\n", i, prefix, i)
	}
	tokens, err := parseTokens([]byte(text.String()))
	if err != nil || len(tokens) != maxTokens {
		t.Fatalf("%d %v", len(tokens), err)
	}
	presented := []struct {
		name, token string
		known       bool
	}{
		{"first", prefix + "-0000-secret", true},
		{"last", fmt.Sprintf("%s-%04d-secret", prefix, maxTokens-1), true},
		{"unknown", strings.Repeat("z", len(prefix)+len("-0000-secret")), false},
		{"unknown, 20 characters right", prefix + "-zzzz-secret", false},
	}
	type find func(tokens []token, presented string) (caller, bool)
	// The calls take turns, so that what slows the machine down slows all of them down.
	measure := func(f find) (ratio float64, medians []time.Duration) {
		const rounds = 501
		took := make([][]time.Duration, len(presented))
		for round := range rounds {
			for turn := range presented {
				i := (round + turn) % len(presented)
				p := presented[i]
				began := time.Now()
				_, ok := f(tokens, p.token)
				took[i] = append(took[i], time.Since(began))
				if ok != p.known {
					t.Fatalf("%s: %v", p.name, ok)
				}
			}
		}
		for i, p := range presented {
			slices.Sort(took[i])
			medians = append(medians, took[i][rounds/2])
			t.Logf("%s: %s", p.name, took[i][rounds/2])
		}
		return float64(slices.Max(medians)) / float64(slices.Min(medians)), medians
	}
	// One that returns at the first match, to see that this would be seen.
	early, _ := measure(func(tokens []token, presented string) (caller, bool) {
		sum := sha256.Sum256([]byte(presented))
		for i := range tokens {
			if subtle.ConstantTimeCompare(sum[:], tokens[i].sum[:]) == 1 {
				return tokens[i].caller, true
			}
		}
		return caller{}, false
	})
	t.Logf("with an early return the slowest takes %.0f times as long as the fastest", early)
	if early < 5 {
		t.Errorf("an early return makes a difference of %.2f only: this test sees nothing", early)
	}
	const allowed, tries = 1.25, 4
	for try := 1; ; try++ {
		ratio, medians := measure(findToken)
		t.Logf("the slowest takes %.3f times as long as the fastest", ratio)
		if ratio <= allowed {
			return
		}
		if try == tries {
			t.Fatalf("the medians differ by a factor of %.3f in the last of %d tries: %v", ratio, tries, medians)
		}
	}
}

func FuzzParseTokens(f *testing.F) {
	f.Add([]byte("a read 0123456789abcdef\nb operate sha256:00\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		tokens, err := parseTokens(text)
		if err != nil {
			for field := range strings.FieldsSeq(string(text)) {
				if len(field) >= minTokenLength && strings.Contains(err.Error(), field) &&
					!strings.Contains("NAME SCOPE TOKEN hexadecimal digits",
						field) {
					t.Errorf("the error repeats %q: %v", field, err)
				}
			}
		}
		for _, x := range tokens {
			if x.name == "" {
				t.Error("a token without a name")
			}
		}
	})
}

// authority makes certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
	dir  string
}

func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: dir}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour),
		IsCA:     true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return a
}

// issue makes a certificate for 127.0.0.1, and files NAME.crt and NAME.key of it.
func (a *authority) issue(name string) (tls.Certificate, string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses: []net.IP{
			net.IPv4(127, 0, 0, 1),
		},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	writeText(a.t, filepath.Join(a.dir, name+".crt"), string(certPEM))
	writeText(a.t, filepath.Join(a.dir, name+".key"), string(keyPEM))
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return pair, base64.StdEncoding.EncodeToString(sum[:])
}

// as is a client with this certificate, or none.
func (a *service) as(ca *authority, pair *tls.Certificate) {
	a.t.Helper()
	a.client.CloseIdleConnections()
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	c := &tls.Config{RootCAs: roots}
	if pair != nil {
		// Shown whatever authorities the server names.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	transport := &http.Transport{TLSClientConfig: c}
	a.t.Cleanup(transport.CloseIdleConnections)
	a.client.Transport = transport
}

func TestClientCertificates(t *testing.T) {
	dir := t.TempDir()
	ca, other := newAuthority(t, dir, "ca"), newAuthority(t, dir, "other")
	ca.issue("server")
	pinned, pin := ca.issue("pinned")
	unpinned, _ := ca.issue("unpinned")
	stranger, _ := other.issue("stranger")
	writeText(t, dir+"/ca.crt", ca.pem)
	a := start(t, &fake{}, func(c *config.Config, _ *Options) {
		c.Serve.TokensFile = ""
		c.Serve.CertFile, c.Serve.KeyFile, c.Serve.ClientCAFile = dir+"/server.crt", dir+"/server.key", dir+"/ca.crt"
		c.Serve.ClientKeyPins = []string{"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", pin}
	})
	a.url, a.token = "https://"+a.server.Addr().String(), ""
	a.as(ca, nil)
	a.expect(a.do("GET", "/healthz", ""), 200, "") // a probe has no certificate
	if got := a.expect(a.do("GET", "/v1/status", ""), 401, "unauthenticated"); got.header.Get("WWW-Authenticate") == "" {
		t.Error("no WWW-Authenticate")
	}
	a.as(ca, &pinned)
	o := a.expect(a.do("POST", "/v1/pgbouncer/resume", ""), 200, "").operation(t)
	if !strings.HasSuffix(o.Caller, ":pinned") || !strings.HasPrefix(o.Caller, "cert:") {
		t.Errorf("%q", o.Caller)
	}
	a.as(ca, &unpinned)
	a.expect(a.do("GET", "/v1/status", ""), 401, "unauthenticated")
	a.as(ca, &stranger)
	if response, err := a.client.Get(a.url + "/healthz"); err == nil {
		response.Body.Close()
		t.Error("a certificate of another authority")
	}
	// The authority is changed under an open connection: it does not count any more.
	a.as(ca, &pinned)
	a.expect(a.do("GET", "/v1/status", ""), 200, "")
	writeText(t, dir+"/ca.crt", other.pem)
	eventually(t, "the old authority is refused", func() bool { return a.do("GET", "/v1/status", "").status == 401 })
	// And the server's own certificate is the new one for new connections.
	other.issue("server")
	eventually(t, "the new certificate is shown", func() bool {
		c, err := tls.Dial("tcp", a.server.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return false
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].CheckSignatureFrom(other.cert) == nil
	})
}

func TestCertificateScope(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	ca.issue("server")
	pair, _ := ca.issue("client")
	writeText(t, dir+"/ca.crt", ca.pem)
	a := start(t, &fake{}, func(c *config.Config, _ *Options) {
		c.Serve.CertFile, c.Serve.KeyFile, c.Serve.ClientCAFile, c.Serve.ClientScope = dir+"/server.crt", dir+"/server.key", dir+"/ca.crt",
			config.ScopeRead
	})
	a.url, a.token = "https://"+a.server.Addr().String(), ""
	a.as(ca, &pair)
	a.expect(a.do("GET", "/v1/status", ""), 200, "")
	a.expect(a.do("POST", "/v1/pgbouncer/resume", ""), 403, "forbidden")
	a.token = operateToken // a token says more than the certificate
	a.expect(a.do("POST", "/v1/pgbouncer/resume", ""), 200, "")
	a.token = "not-a-token-of-ours"
	a.expect(a.do("GET", "/v1/status", ""), 401, "unauthenticated")
	// Plain HTTP on the port of TLS.
	if response, body := raw(t, a.server.Addr().String(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); response != nil {
		t.Errorf("%d %s", response.StatusCode, body)
	}
}

// TestSlowHandshake: TLS has to be negotiated within the time for the header.
func TestSlowHandshake(t *testing.T) {
	dir := t.TempDir()
	newAuthority(t, dir, "ca").issue("server")
	const limit = 200 * time.Millisecond
	s, _ := serving(t, &fake{}, func(c *config.Config) { c.Serve.CertFile, c.Serve.KeyFile = dir+"/server.crt", dir+"/server.key" },
		func(s *Server) { s.headerTimeout = limit })
	for what, sent := range map[string]string{"nothing": "", "half a ClientHello": "\x16\x03\x01\x02\x00\x01"} {
		began := time.Now()
		c := dial(t, s)
		if _, err := c.Write([]byte(sent)); err != nil {
			t.Fatal(err)
		}
		closes(t, what, c, began, limit)
	}
}

// TestBeyondLoopback: no server listens for others without TLS and authentication.
func TestBeyondLoopback(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	ca.issue("server")
	writeText(t, dir+"/tokens", "a read "+readToken+"\n")
	for _, test := range []struct {
		serve config.Serve
		want  string
	}{
		{config.Serve{Listen: "0.0.0.0:0"}, "TLS is not set up"},
		{config.Serve{Listen: ":0"}, "TLS is not set up"},
		{config.Serve{Listen: "[::]:0", TokensFile: dir + "/tokens"}, "TLS is not set up"},
		{config.Serve{Listen: "0.0.0.0:0", CertFile: dir + "/server.crt", KeyFile: dir + "/server.key"}, "nobody has to prove who he is"},
		{config.Serve{Listen: "0.0.0.0:0", CertFile: dir + "/server.crt", KeyFile: dir + "/server.key", TokensFile: dir + "/tokens"}, ""},
		{config.Serve{Listen: "127.0.0.1:0", CertFile: dir + "/tokens", KeyFile: dir + "/server.key"}, "serve.cert_file"},
		{config.Serve{Listen: "127.0.0.1:0", TokensFile: dir + "/none"}, "serve.tokens_file"},
		{config.Serve{Listen: "127.0.0.1:0", TokensFile: dir + "/server.key"}, "is not NAME SCOPE TOKEN"},
		{config.Serve{Listen: "nosuch.invalid:1"}, "cannot be resolved"},
	} {
		server, err := New(
			Options{Member: &member.Member{Log: testLog(t), Config: &config.Config{StateDir: t.TempDir(), Serve: test.serve}}},
		)
		if err == nil {
			server.Close()
		}
		if test.want == "" && err != nil || test.want != "" && (!config.IsInvalid(err) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%+v: %v", test.serve, err)
		}
	}
}

// TestOpen: without authentication on loopback anybody may, but no web page by a name of its own.
func TestOpen(t *testing.T) {
	a := start(t, &fake{}, func(c *config.Config, _ *Options) { c.Serve.TokensFile = "" })
	a.token = ""
	a.expect(a.do("POST", "/v1/pgbouncer/resume", ""), 200, "")
	a.expect(a.do("GET", "/v1/status", "", "Host: localhost:8009"), 200, "")
	a.expect(a.do("GET", "/v1/status", "", "Host: evil.example"), 421, "misdirected-request")
	a.expect(a.do("GET", "/v1/status", "", "Host: 10.0.0.1"), 421, "misdirected-request")
	if !strings.Contains(a.out.String(), "anybody on this machine") {
		t.Error("no warning")
	}
}

// TestTwoServers: one state directory has one server.
func TestTwoServers(t *testing.T) {
	a := start(t, &fake{}, nil)
	if _, err := New(Options{Member: a.server.member}); err == nil || !strings.Contains(err.Error(), operation.ErrBusy.Error()) {
		t.Errorf("%v", err)
	}
}
