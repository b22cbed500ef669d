package docs_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/single"
)

const apiPage = "docs/api.md"

// TestAPIExamples runs the page from its top to its end in one shell, with a real pgbaton serve in front of a real PgBouncer, and holds
// each answer against the one that the page shows.
func TestAPIExamples(t *testing.T) {
	single.Need(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	pg, err := single.StartPostgres(ctx, single.SuiteTrixie, single.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Close()
	pooler, err := single.StartPgBouncer(ctx, single.SuiteTrixie, single.PgBouncerOptions{Backend: pg})
	if err != nil {
		t.Fatal(err)
	}
	defer pooler.Close()
	ini, err := pooler.Config()
	if err != nil {
		t.Fatal(err)
	}
	if err := pooler.RewriteConfig("; config-version: 42\n" + ini); err != nil {
		t.Fatal(err)
	}

	r := &reader{t: t, ctx: ctx, dir: t.TempDir(), binary: build(t)}
	r.member = fmt.Sprintf(`
patroni: {url: "http://127.0.0.1:1"}
postgres: %q
poolers:
  - dsn: "postgres://%s@%s:%d/pgbouncer"
    password_file: pooler-password
versions:
  pgbouncer: {line: %q}
state_dir: %q
`, fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres", pg.SocketDir, pg.Port), single.AdminUser, pooler.Addr, pooler.Port,
		pooler.ConfigPath, filepath.Join(r.dir, "state"))
	r.write("pooler-password", single.Password+"\n")
	r.certificates()
	if err := os.Mkdir(filepath.Join(r.dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.openShell()
	r.read(read(t, apiPage))
	promtool(t, r.ctx, r.run(`curl -sS --cacert ca.crt "$PGBATON/metrics"`))
	r.endServe()
	if r.compared < 10 {
		t.Errorf("only %d answers were compared", r.compared)
	}
	if said := r.everything.String(); strings.Contains(said, single.Password) || strings.Contains(said, r.token()) {
		t.Error("a password or token is in what was said")
	}
}

// reader does what a person would who follows the page.
type reader struct {
	t      *testing.T
	ctx    context.Context
	dir    string
	binary string
	member string // the rest of pgbaton.yaml
	config string // the page's part of it

	stdin   io.Writer
	answers *bufio.Reader
	end     func() // of the serve that runs
	address string

	compared   int
	everything bytes.Buffer
}

func (r *reader) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reader) openShell() {
	r.t.Helper()
	shell := exec.CommandContext(r.ctx, "sh")
	shell.Dir = r.dir
	shell.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	in, err := shell.StdinPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	out, err := shell.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	shell.Stderr = shell.Stdout
	if err := shell.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		_ = in.Close()
		_ = shell.Wait()
	})
	r.stdin, r.answers = in, bufio.NewReader(out)
}

const endOfAnswer = "-- the end of the answer, code "

// run is what a command writes. It must end with 0.
func (r *reader) run(command string) string {
	r.t.Helper()
	if _, err := fmt.Fprintf(r.stdin, "%s\nprintf '\\n%s%%s\\n' $?\n", command, endOfAnswer); err != nil {
		r.t.Fatalf("%s: %v", command, err)
	}
	var answer strings.Builder
	for {
		line, err := r.answers.ReadString('\n')
		if err != nil {
			r.t.Fatalf("%s: %v\n%s", command, err, answer.String())
		}
		if code, end := strings.CutPrefix(line, endOfAnswer); end {
			text := strings.TrimSuffix(answer.String(), "\n")
			if code != "0\n" {
				r.t.Fatalf("%s: code %s%s", command, code, text)
			}
			r.everything.WriteString(text)
			return text
		}
		answer.WriteString(line)
	}
}

// read follows the page's blocks in their order.
func (r *reader) read(page string) {
	r.t.Helper()
	command, answer := "", ""
	for _, m := range fence.FindAllStringSubmatch(page, -1) {
		language, text := m[1], m[2]
		switch language {
		case "yaml":
			r.config = text
		case "console":
			for line := range strings.Lines(text) {
				var ok bool
				if command, ok = strings.CutPrefix(strings.TrimSpace(line), "$ "); !ok {
					r.t.Fatalf("not a command: %q", line)
				}
				if strings.HasPrefix(command, "pgbaton ") {
					r.startServe(strings.Fields(command)[1:])
					continue
				}
				answer = r.run(strings.ReplaceAll(command, "127.0.0.1:8009", r.address))
			}
		case "json", "http", "text":
			r.t.Logf("$ %s\n%s", command, clipped(answer))
			r.compared++
			for _, difference := range compare(language, text, answer) {
				r.t.Errorf("%s\n  %s", command, difference)
			}
		default:
			r.t.Errorf("a block of %q", language)
		}
	}
}

func clipped(text string) string {
	if len(text) > 3000 {
		return text[:3000] + "…"
	}
	return text
}

// spoken is what a process says, read while it speaks.
type spoken struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *spoken) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *spoken) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

var listening = regexp.MustCompile(`msg=listening .*address=\S*:(\d+)`)

// startServe starts it with the page's configuration, on a free port; the one before must end well.
func (r *reader) startServe(arguments []string) {
	r.t.Helper()
	r.endServe()
	r.write("pgbaton.yaml", strings.ReplaceAll(r.config, ":8009", ":0")+r.member)
	said := &spoken{}
	serve := exec.CommandContext(r.ctx, r.binary, arguments...)
	serve.Dir, serve.Stderr, serve.Stdout = r.dir, said, said
	serve.Env = []string{"PGBATON_CONFIG=" + filepath.Join(r.dir, "pgbaton.yaml"), "PGBATON_LOG_LEVEL=debug"}
	if err := serve.Start(); err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve.Wait() }()
	r.end = func() {
		_ = serve.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			r.t.Errorf("serve ended with %v:\n%s", err, said)
		}
		r.everything.WriteString(said.String())
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if m := listening.FindStringSubmatch(said.String()); m != nil {
			r.address = "127.0.0.1:" + m[1]
			return
		}
		select {
		case <-tick.C:
		case err := <-ended:
			ended <- err
			r.end = nil
			r.t.Fatalf("serve has ended: %v\n%s", err, said)
		case <-r.ctx.Done():
			r.t.Fatalf("serve does not listen:\n%s", said)
		}
	}
}

// endServe is SIGTERM: it must end with 0.
func (r *reader) endServe() {
	r.t.Helper()
	if r.end != nil {
		r.end()
		r.end = nil
	}
}

// token is the one that the page has made.
func (r *reader) token() string {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, "tokens"))
	if err != nil {
		r.t.Fatal(err)
	}
	fields := strings.Fields(string(text))
	return fields[len(fields)-1]
}

// certificates are what the page takes for granted: an authority, and a certificate of it for the server and for a client.
func (r *reader) certificates() {
	r.t.Helper()
	made := func(serial int64, parent *x509.Certificate, signer *ecdsa.PrivateKey, change func(*x509.Certificate)) (*x509.Certificate,
		*ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			r.t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(serial),
			NotBefore:    time.Now().Add(-time.Minute),
			NotAfter:     time.Now().Add(time.Hour),
			KeyUsage:     x509.KeyUsageDigitalSignature,
		}
		change(c)
		if parent == nil {
			parent, signer = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
		if err != nil {
			r.t.Fatal(err)
		}
		name := c.Subject.CommonName
		r.write(name+".crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			r.t.Fatal(err)
		}
		r.write(name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
		return c, key
	}
	ca, key := made(1, nil, nil, func(c *x509.Certificate) {
		c.Subject, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = pkix.Name{CommonName: "ca"}, true, true, x509.KeyUsageCertSign
	})
	made(2, ca, key, func(c *x509.Certificate) {
		c.Subject, c.IPAddresses, c.ExtKeyUsage = pkix.Name{
			CommonName: "server",
		}, []net.IP{
			net.IPv4(127, 0, 0, 1),
		}, []x509.ExtKeyUsage{
			x509.ExtKeyUsageServerAuth,
		}
	})
	made(3, ca, key, func(c *x509.Certificate) {
		c.Subject, c.ExtKeyUsage = pkix.Name{CommonName: "client"}, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
}

// compare says where an answer is not as the page shows it. JSON must have the same members with values of the same types; "…" on the page
// stands for others. Lines of text must be there. Times, ids, addresses and durations may be others.
func compare(language, shown, answer string) (differences []string) {
	if language == "http" {
		shownHead, shownBody, _ := strings.Cut(shown, "\n\n")
		head, body, _ := strings.Cut(strings.ReplaceAll(answer, "\r\n", "\n"), "\n\n")
		return append(missingLines(shownHead, head), compareJSON(shownBody, body, strings.Contains(shownHead, " 202 "))...)
	}
	if language == "json" {
		return compareJSON(shown, answer, false)
	}
	return missingLines(shown, answer)
}

func missingLines(shown, answer string) (differences []string) {
	have := strings.Split(masked(answer), "\n")
	for line := range strings.Lines(shown) {
		line = masked(strings.TrimSuffix(line, "\n"))
		if line != "…" && !slices.Contains(have, line) {
			differences = append(differences, "not answered: "+line)
		}
	}
	return differences
}

var masks = []struct {
	what *regexp.Regexp
	by   string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+Z`), "TIME"},
	{regexp.MustCompile(`\b[0-9a-f]{16}\b`), "ID"},
	{regexp.MustCompile(`/[\w/.-]+/pgbouncer\.ini`), "FILE"},
	{regexp.MustCompile(`\b\d+\.\d+\.\d+\.\d+:\d+\b`), "POOLER"},
	{regexp.MustCompile(`\b\d+(\.\d+)?(µs|ms|s)\b`), "DURATION"},
}

func masked(text string) string {
	for _, m := range masks {
		text = m.what.ReplaceAllString(text, m.by)
	}
	return text
}

const others = "…"

func compareJSON(shown, answer string, moving bool) (differences []string) {
	var want, got any
	if err := json.Unmarshal([]byte(shown), &want); err != nil {
		return []string{"the page shows no JSON: " + err.Error()}
	}
	if err := json.Unmarshal([]byte(answer), &got); err != nil {
		return []string{"no JSON: " + err.Error() + ": " + answer}
	}
	paths := func(v any) map[string]string {
		found := map[string]string{}
		collect("", v, found)
		return found
	}
	wanted, have := paths(want), paths(got)
	for _, path := range slices.Sorted(maps.Keys(wanted)) {
		switch was, ok := have[path]; {
		case strings.HasSuffix(path, others):
		case !ok:
			differences = append(differences, path+" is not in the answer")
		case was == wanted[path],
			moving && strings.HasSuffix(path, ".state"),
			strings.Contains(path, "[]") && strings.HasPrefix(was, "string"),
			path == ".member":
		default:
			differences = append(differences, fmt.Sprintf("%s is %s, the page has %s", path, was, wanted[path]))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(have)) {
		if _, ok := wanted[path]; !ok && !allowed(path, wanted) {
			differences = append(differences, path+" is in the answer, and not on the page")
		}
	}
	return differences
}

// allowed: the page has a "…" beside it, or above.
func allowed(path string, wanted map[string]string) bool {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '.' {
			if _, ok := wanted[path[:i+1]+others]; ok {
				return true
			}
		}
	}
	return false
}

// collect finds the members of a value by their paths; those of all elements of an array are one.
func collect(path string, v any, found map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			collect(path+"."+name, member, found)
		}
	case []any:
		for _, element := range v {
			collect(path+"[]", element, found)
		}
	case string:
		found[path] = "string " + masked(v)
	default:
		found[path] = fmt.Sprintf("%T", v)
	}
}

// TestAPITables holds the page's tables of calls and metrics against the program.
func TestAPITables(t *testing.T) {
	page := read(t, apiPage)
	var calls []string
	for _, row := range rows(t, page, "Calls") {
		if call, ok := code(row[0]); ok {
			calls = append(calls, call)
		}
	}
	var routes []string
	var names []string
	for _, file := range []string{"httpapi/routes.go", "httpapi/metrics.go"} {
		for _, s := range texts(t, file) {
			if regexp.MustCompile(`^pgbaton_[a-z_]+$`).MatchString(s) {
				names = append(names, s)
			}
		}
	}
	types := map[string]string{}
	var listed []string
	for _, row := range rows(t, page, "Metrics") {
		if name, ok := code(row[0]); ok {
			listed = append(listed, name)
			types[name] = row[1]
		}
	}
	slices.Sort(names)
	slices.Sort(listed)
	if !slices.Equal(names, listed) {
		t.Errorf("the page has the metrics\n%v\nthe program\n%v", listed, names)
	}

	serve := startQuiet(t)
	var document struct {
		OpenAPI string                    `json:"openapi"`
		Paths   map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal([]byte(get(t, serve+"/openapi.json")), &document); err != nil {
		t.Fatal(err)
	}
	for path, methods := range document.Paths {
		for method := range methods {
			routes = append(routes, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(calls)
	slices.Sort(routes)
	if !slices.Equal(calls, routes) {
		t.Errorf("the page has the calls\n%v\nthe document\n%v", calls, routes)
	}
	if !strings.HasPrefix(document.OpenAPI, "3.1") {
		t.Errorf("the document is OpenAPI %s", document.OpenAPI)
	}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (pgbaton_\w+) (\w+)$`).FindAllStringSubmatch(get(t, serve+"/metrics"), -1) {
		if types[m[1]] != m[2] {
			t.Errorf("%s is a %s, the page says %q", m[1], m[2], types[m[1]])
		}
	}
}

// startQuiet starts a serve with nothing behind it, and returns its address.
func startQuiet(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	r := &reader{t: t, ctx: ctx, dir: t.TempDir(), binary: build(t)}
	r.config = "serve: {listen: \"127.0.0.1:8009\"}\n"
	r.member = fmt.Sprintf("state_dir: %q\n", r.dir)
	r.startServe([]string{"serve"})
	t.Cleanup(r.endServe)
	return "http://" + r.address
}

func get(t *testing.T, url string) string {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 4<<20))
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v", url, answer.Status, err)
	}
	return string(text)
}

// promtool has Prometheus' own tool judge the metrics.
func promtool(t *testing.T, ctx context.Context, metrics string) {
	t.Helper()
	out, err := exec.CommandContext(ctx, filepath.Join(root, "scripts/promtool.sh")).Output()
	if err != nil {
		t.Fatalf("promtool.sh: %v", err)
	}
	check := exec.CommandContext(ctx, strings.TrimSpace(string(out)), "check", "metrics")
	check.Stdin = strings.NewReader(metrics)
	if said, err := check.CombinedOutput(); err != nil || len(said) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, said)
	}
}
