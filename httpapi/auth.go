package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/state"
)

const (
	filesInterval  = 500 * time.Millisecond // between looks at the files with tokens, certificates and keys
	maxTokensFile  = 256 << 10
	maxTokens      = 1000
	minTokenLength = 16
	maxTokenLength = 1024
)

// caller is who asks, and what he may.
type caller struct {
	name    string // as in the token file; of a certificate, its subject's name
	operate bool   // else he may only read
}

// token is one line of the token file. Of the token itself only the hash is kept.
type token struct {
	caller
	sum [sha256.Size]byte
}

// parseTokens reads the token file: a line has a name, scopes with commas, and the token or sha256:HEX of it. Lines that cannot be read are
// left out, and each is told of by its number; no error repeats what stands there.
func parseTokens(text []byte) ([]token, error) {
	var tokens []token
	var errs []error
	n := 0
	for line := range bytes.Lines(text) {
		n++
		fields := strings.Fields(string(line))
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		t, err := parseToken(fields)
		if err == nil && len(tokens) == maxTokens {
			errs = append(errs, fmt.Errorf("line %d: more than %d tokens", n, maxTokens))
			break
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", n, err))
			continue
		}
		tokens = append(tokens, t)
	}
	return tokens, errors.Join(errs...)
}

func parseToken(fields []string) (token, error) {
	if len(fields) != 3 {
		return token{}, errors.New("is not NAME SCOPE TOKEN")
	}
	t := token{caller: caller{name: fields[0]}}
	if len(t.name) > 64 || strings.ContainsFunc(t.name, func(r rune) bool { return r < '!' || r > '~' }) {
		return token{}, errors.New("the name has more than 64 characters, or characters that are not allowed")
	}
	for scope := range strings.SplitSeq(fields[1], ",") {
		switch scope {
		case config.ScopeOperate:
			t.operate = true
		case config.ScopeRead:
		default:
			return token{}, errors.New("a scope is neither read nor operate")
		}
	}
	if sum, ok := strings.CutPrefix(fields[2], "sha256:"); ok {
		raw, err := hex.DecodeString(sum)
		if err != nil || len(raw) != sha256.Size {
			return token{}, errors.New("behind sha256: must be 64 hexadecimal digits")
		}
		copy(t.sum[:], raw)
		return t, nil
	}
	switch length := len(fields[2]); {
	case length < minTokenLength:
		return token{}, fmt.Errorf("the token has fewer than %d characters", minTokenLength)
	case length > maxTokenLength:
		return token{}, fmt.Errorf("the token has more than %d characters", maxTokenLength)
	}
	t.sum = sha256.Sum256([]byte(fields[2]))
	return t, nil
}

// findToken compares with every token there is, and takes as long whether one fits or not.
func findToken(tokens []token, presented string) (caller, bool) {
	sum := sha256.Sum256([]byte(presented))
	found := -1
	for i := range tokens {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(sum[:], tokens[i].sum[:]), i, found)
	}
	if found < 0 {
		return caller{}, false
	}
	return tokens[found].caller, true
}

// credentials are what the files say at the moment.
type credentials struct {
	tokens []token
	cert   *tls.Certificate
	ca     *x509.CertPool
}

// guard knows who may do what. It reads its files again when they change.
type guard struct {
	c    config.Serve
	log  *slog.Logger
	pins [][]byte

	now atomic.Pointer[credentials]

	mu       sync.Mutex
	texts    map[string][]byte // what was read last
	problems map[string]string // what is wrong with a file
}

// newGuard reads all files once. What is wrong then is an error of the configuration.
func newGuard(c config.Serve, log *slog.Logger) (*guard, error) {
	g := &guard{c: c, log: log, texts: map[string][]byte{}, problems: map[string]string{}}
	for _, pin := range c.ClientKeyPins {
		sum, err := base64.StdEncoding.DecodeString(pin)
		if err != nil {
			return nil, &config.Error{Name: "serve.client_key_pins", Problem: "is not base64"}
		}
		g.pins = append(g.pins, sum)
	}
	g.now.Store(&credentials{})
	g.look()
	for _, x := range []struct{ key, path string }{{"serve.tokens_file", c.TokensFile}, {"serve.cert_file", c.CertFile}, {"serve.key_file",
		c.KeyFile}, {"serve.client_ca_file", c.ClientCAFile}} {
		if problem := g.problems[x.path]; x.path != "" && problem != "" {
			return nil, &config.Error{Name: x.key, Problem: problem}
		}
	}
	return g, nil
}

// open reports that nobody needs to say who he is.
func (g *guard) open() bool { return g.c.TokensFile == "" && g.c.ClientCAFile == "" }

// watch looks at the files until the context ends. They are small, and reading is the one sure way to see a change: no event is lost, and
// a symbolic link that was swapped is followed.
func (g *guard) watch(ctx context.Context) {
	tick := time.NewTicker(filesInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			g.look()
		}
	}
}

// look reads what has changed. A token file that cannot be read allows nobody; a line of it that cannot be read, not this one. A
// certificate or authority that cannot be read leaves the one before in place: TLS goes on, and clients still prove who they are.
func (g *guard) look() {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := *g.now.Load()
	changed := false
	if text, news := g.read(g.c.TokensFile, maxTokensFile); news {
		tokens, err := parseTokens(text)
		if err == nil && len(tokens) == 0 {
			err = errors.New("has no token: write NAME SCOPE TOKEN in a line")
		}
		if text != nil { // else it could not be read, which is noted
			g.note(g.c.TokensFile, err)
		}
		warnMode(g.log, g.c.TokensFile)
		next.tokens, changed = tokens, true
	}
	certPEM, newCert := g.read(g.c.CertFile, maxTokensFile)
	keyPEM, newKey := g.read(g.c.KeyFile, maxTokensFile)
	if (newCert || newKey) && certPEM != nil && keyPEM != nil {
		pair, err := tls.X509KeyPair(certPEM, keyPEM)
		g.note(g.c.CertFile, err)
		g.note(g.c.KeyFile, nil)
		warnMode(g.log, g.c.KeyFile)
		if err == nil {
			next.cert, changed = &pair, true
		}
	}
	if text, news := g.read(g.c.ClientCAFile, maxTokensFile); news && text != nil {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			// Emptied is revoked, as for tokens.
			g.note(g.c.ClientCAFile, errors.New("has no certificate in it: no client certificate is accepted"))
			pool = x509.NewCertPool()
		} else {
			g.note(g.c.ClientCAFile, nil)
		}
		next.ca, changed = pool, true
	}
	if changed {
		g.now.Store(&next)
	}
}

// read is a file's text, empty when it cannot be read, and whether that is news.
func (g *guard) read(path string, limit int64) (text []byte, news bool) {
	if path == "" {
		return nil, false
	}
	// A named pipe is an error at once, as a file that is not there: what waits for a writer would keep tokens valid that were removed.
	text, err := file.Read(path, limit)
	before, known := g.texts[path]
	if err != nil {
		text = nil
	}
	g.texts[path] = text
	if known && bytes.Equal(before, text) && (before == nil) == (text == nil) {
		return text, false
	}
	if err != nil {
		g.note(path, err)
	}
	return text, true
}

// note keeps and logs what is wrong with a file, or that it is all right again.
func (g *guard) note(path string, err error) {
	switch before := g.problems[path]; {
	case err != nil && before != err.Error():
		g.problems[path] = err.Error()
		g.log.Error("a file of the HTTP mode cannot be used as it is", "file", path, "error", err)
	case err == nil && before != "":
		delete(g.problems, path)
		g.log.Info("a file of the HTTP mode is valid again", "file", path)
	}
}

// wrong is what is wrong with the files at the moment; "" is nothing.
func (g *guard) wrong() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []string
	for path, problem := range g.problems {
		all = append(all, path+": "+problem)
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// warnMode: the group may read it, as a Kubernetes secret under fsGroup.
func warnMode(log *slog.Logger, path string) {
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o027 != 0 {
		log.Warn("others than its owner and group can read this file, or its group can write it: chmod 600", "file", path, "mode",
			fmt.Sprintf("%04o", info.Mode().Perm()))
	}
}

// tlsConfig is nil without TLS. A client that shows no certificate may still have a token, or ask for what is open.
func (g *guard) tlsConfig() *tls.Config {
	if g.c.CertFile == "" {
		return nil
	}
	fresh := func() *tls.Config {
		now := g.now.Load()
		c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, SessionTicketsDisabled: true}
		if now.cert != nil {
			c.Certificates = []tls.Certificate{*now.cert}
		}
		if now.ca != nil {
			c.ClientAuth, c.ClientCAs = tls.VerifyClientCertIfGiven, now.ca
		}
		return c
	}
	c := fresh()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return fresh(), nil }
	return c
}

// authenticate says who asks. Nobody needs to when neither tokens nor an authority are configured.
func (g *guard) authenticate(r *http.Request) (caller, *refusal) {
	if g.open() {
		return caller{name: "anybody", operate: true}, nil
	}
	refusal := func(detail string) *refusal {
		p := unauthenticated.problem(detail)
		if g.c.TokensFile != "" {
			p.header("WWW-Authenticate", `Bearer realm="pgbaton"`)
		} else {
			p.header("WWW-Authenticate", `Certificate realm="pgbaton"`)
		}
		return p
	}
	now := g.now.Load()
	values := r.Header.Values("Authorization")
	if len(values) > 1 {
		return caller{}, refusal("there is more than one Authorization header")
	}
	if len(values) == 1 && g.c.TokensFile != "" {
		scheme, presented, _ := strings.Cut(values[0], " ")
		presented = strings.TrimSpace(presented)
		if !strings.EqualFold(scheme, "Bearer") || presented == "" || len(presented) > maxTokenLength {
			return caller{}, refusal("write Authorization: Bearer TOKEN")
		}
		who, ok := findToken(now.tokens, presented)
		if !ok {
			return caller{}, refusal("the token is not known")
		}
		return who, nil
	}
	if g.c.ClientCAFile != "" && r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		who, err := g.checkCertificate(now, r.TLS.PeerCertificates)
		if err != nil {
			return caller{}, refusal(err.Error())
		}
		return who, nil
	}
	switch {
	case g.c.TokensFile == "":
		return caller{}, refusal("show a client certificate")
	case g.c.ClientCAFile == "":
		return caller{}, refusal("send Authorization: Bearer TOKEN")
	}
	return caller{}, refusal("send Authorization: Bearer TOKEN, or show a client certificate")
}

// checkCertificate looks again at each request: a connection may be older than a change of the authority, or than the certificate's end.
func (g *guard) checkCertificate(now *credentials, chain []*x509.Certificate) (caller, error) {
	if now.ca == nil {
		return caller{}, errors.New("there is no authority to check certificates with")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	leaf := chain[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: now.ca, Intermediates: between,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return caller{}, errors.New("the client certificate is not, or no longer, valid")
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	if g.pins != nil {
		match := 0
		for _, pin := range g.pins {
			match |= subtle.ConstantTimeCompare(sum[:], pin)
		}
		if match == 0 {
			return caller{}, errors.New("the client certificate's key is not in serve.client_key_pins")
		}
	}
	name := "cert:" + hex.EncodeToString(sum[:6])
	if leaf.Subject.CommonName != "" {
		name += ":" + state.Clip(leaf.Subject.CommonName, 64)
	}
	return caller{name: name, operate: g.c.ClientScope == config.ScopeOperate}, nil
}
