package patroni_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/postgres"
)

// childTask makes the test binary a command, to be run inside a member's container as Patroni's user or as another one.
const childTask = "PGBATON_TEST_TASK"

// task prints what became of it; the first word of the answer is ok, or what kind of error it is.
func task(words []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	var err error
	switch words[0] {
	case "find", "reload":
		var p *patroni.Process
		if p, err = patroni.FindProcess(words[1]); err == nil {
			if words[0] == "reload" {
				err = p.Reload()
			}
			p.Close()
			if err == nil {
				fmt.Println("ok", p.PID)
				return
			}
		}
	case "ctl":
		err = patroni.CtlReload(ctx, words[1], words[2], words[3], secret)
	}
	var ctl *patroni.CtlError
	switch {
	case err == nil:
		fmt.Println("ok")
	case errors.As(err, &ctl):
		fmt.Println("CtlError", ctl.ExitCode, err)
	case errors.Is(err, patroni.ErrNoCtl):
		fmt.Println("ErrNoCtl", err)
	case errors.Is(err, patroni.ErrManyProcesses):
		fmt.Println("ErrManyProcesses", err)
	case errors.Is(err, patroni.ErrNoProcess):
		fmt.Println("ErrNoProcess", err)
	default:
		fmt.Println("error", err)
	}
}

// member is a lab of one, without poolers.
type member struct {
	*lab.Member
	etc    string // /etc/lab, as it is seen from here
	config map[string]any
}

func (m *member) do(t *testing.T, user string, words ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	start := time.Now()
	r, err := m.ExecAs(ctx, user, []string{childTask + "=" + strings.Join(words, "\n"), "GORACE=atexit_sleep_ms=0"}, "/callbacks/test")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(r.Stdout+r.Stderr, secret) {
		t.Errorf("a secret: %s %s", r.Stdout, r.Stderr)
	}
	t.Logf("%s, %.1f s: %s%s", strings.Join(words, " "), time.Since(start).Seconds(), r.Stdout, r.Stderr)
	return strings.TrimSpace(r.Stdout)
}

func (m *member) write(t *testing.T, name string, content []byte) {
	t.Helper()
	path := filepath.Join(m.etc, name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

func (m *member) writeConfig(t *testing.T, change func(config map[string]any)) {
	t.Helper()
	change(m.config)
	content, err := json.Marshal(m.config)
	if err != nil {
		t.Fatal(err)
	}
	m.write(t, "patroni.yml", content)
}

func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s: %v", what, err)
		}
		<-tick.C
	}
}

func startMember(t *testing.T, suite string) *member {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mount namespaces and chroot")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(dir, "test"), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if err = errors.Join(err, to.Close()); err != nil {
		t.Fatal(err)
	}
	m := &member{}
	l, err := lab.Start(
		ctx,
		lab.Options{
			Suite:        suite,
			Members:      1,
			PgbenchScale: 1,
			Callbacks:    dir,
			Patroni:      func(_ *lab.Member, c map[string]any) { m.config = c },
		}.Quick(),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	m.Member = l.Members()[0]
	m.etc = filepath.Join(filepath.Dir(filepath.Dir(m.DataDir())), "etc-"+m.Name)
	return m
}

func TestRealPatroni(t *testing.T) {
	for _, suite := range []string{"trixie", "sid"} {
		t.Run(suite, func(t *testing.T) {
			m := startMember(t, suite)
			scope := m.config["scope"].(string)
			c, err := patroni.New(patroni.Options{URL: m.URL()})
			if err != nil {
				t.Fatal(err)
			}
			t.Run("settings and restarts", func(t *testing.T) { restarts(t, m, c) })
			t.Run("process", func(t *testing.T) { processes(t, m) })
			t.Run("patronictl", func(t *testing.T) { patronictl(t, m, scope) })
			t.Run("credentials", func(t *testing.T) { credentials(t, m, scope) })
		})
	}
}

func restarts(t *testing.T, m *member, c *patroni.Client) {
	ctx := t.Context()
	parameters := map[string]any{"max_connections": 301, "pgbaton.config_version": "42", "log_connections": true, "work_mem": 8192}
	status, answer, err := m.REST(ctx, http.MethodPatch, "/config", map[string]any{"postgresql": map[string]any{"parameters": parameters}})
	if err != nil || status != 200 {
		t.Fatal(status, answer, err)
	}
	d, err := c.Dynamic(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"max_connections": "301", "pgbaton.config_version": "42", "log_connections": "true",
		"work_mem": "8192"} {
		if v, ok := d.Setting(name); v != want || !ok {
			t.Errorf("%s: %q, %v", name, v, ok)
		}
	}
	if err := c.Reload(ctx); err != nil {
		t.Error(err)
	}
	eventually(t, "the reason for a restart", func() error {
		h, err := c.Leader(ctx)
		if err != nil {
			return err
		}
		if r := h.PendingRestartReason; !h.PendingRestart || len(r) != 1 ||
			r["max_connections"] != (patroni.Change{Old: "300", New: "301"}) {
			return fmt.Errorf("%+v", h)
		}
		return nil
	})
	// Patroni gives it on the command line and in the file: the server says the same.
	s, err := postgres.Open(m.DSN())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server's own word", func() error {
		conn, err := s.Connect(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		pending, err := conn.PendingRestart(ctx)
		if err != nil || len(pending) != 1 ||
			pending[0] != (postgres.PendingRestart{Name: "max_connections", Running: "300", File: "301"}) {
			return fmt.Errorf("%+v, %v", pending, err)
		}
		return nil
	})
	eventually(t, "the same in the DCS", func() error {
		cluster, err := c.Cluster(ctx)
		if err != nil || len(cluster.Members) != 1 || cluster.Members[0].PendingRestartReason["max_connections"].New != "301" {
			return fmt.Errorf("%+v, %v", cluster, err)
		}
		return nil
	})
}

func processes(t *testing.T, m *member) {
	want, err := m.Patroni()
	if err != nil {
		t.Fatal(err)
	}
	log, _ := os.ReadFile(m.LogFile("patroni.log"))
	t.Logf("on the host: %d %q", want.PID, want.Cmdline())
	for _, config := range []string{"", "/etc/lab/patroni.yml", "/etc/lab/../lab/patroni.yml"} {
		if got := m.do(t, "postgres", "find", config); !strings.HasPrefix(got, "ok ") {
			t.Errorf("%q: %s", config, got)
		}
	}
	if got := m.do(
		t,
		"postgres",
		"find",
		"/etc/passwd",
	); !strings.HasPrefix(got, "ErrNoProcess ") ||
		!strings.Contains(got, "was not started with /etc/passwd, which is patroni.config") {
		t.Error(got)
	}
	if got := m.do(t, "root", "find", ""); !strings.HasPrefix(got, "ErrNoProcess ") || !strings.Contains(got, "run pgbaton as that user") {
		t.Error(got)
	}
	if got := m.do(t, "postgres", "reload", "/etc/lab/patroni.yml"); !strings.HasPrefix(got, "ok ") {
		t.Error(got)
	}
	eventually(t, "the reload is in Patroni's log", func() error {
		now, err := os.ReadFile(m.LogFile("patroni.log"))
		if err != nil || !strings.Contains(string(now[len(log):]), "eload") {
			return fmt.Errorf("%d bytes, %v", len(now), err)
		}
		return nil
	})

	// As process 1 it starts itself once more. It waits for a DCS that is not there; its signal handlers stand by then.
	m.write(
		t,
		"first.yml",
		[]byte(
			`{"scope": "x", "name": "x", "etcd3": {"host": "127.0.0.1:9"}, "restapi": {"listen": "127.0.0.1:18008", "connect_address": "127.0.0.1:18008"},
 "postgresql": {"listen": "127.0.0.1:15432", "connect_address": "127.0.0.1:15432", "data_dir": "/tmp/none", "bin_dir": "/usr/local/pgbin", "authentication": {"replication": {"username": "x"}}}}`,
		),
	)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		r, err := m.ExecAs(
			ctx,
			"root",
			nil,
			"unshare",
			"--pid",
			"--fork",
			"--kill-child",
			"--mount-proc",
			"setpriv",
			"--reuid=postgres",
			"--regid=postgres",
			"--init-groups",
			"--",
			"patroni",
			"/etc/lab/first.yml",
		)
		done <- fmt.Errorf("%s %s %w", r.Stdout, r.Stderr, errors.Join(err, errors.New("ended")))
	}()
	var found string
	eventually(t, "process 1", func() error {
		select {
		case err := <-done:
			t.Fatal(err)
		default:
		}
		if found = m.do(t, "postgres", "find", "/etc/lab/first.yml"); !strings.HasPrefix(found, "ok ") {
			return errors.New(found)
		}
		return nil
	})
	// Its child is there after a while; the answer stays the same. Python before 3.14 forks, and both have the same command line.
	top := strings.TrimPrefix(found, "ok ")
	eventually(t, "a child of process 1", func() error {
		r, err := m.ExecAs(t.Context(), "root", nil, "ps", "--no-headers", "--ppid", top, "-o", "pid,args")
		if err != nil || strings.TrimSpace(r.Stdout) == "" {
			return fmt.Errorf("%s%s%v", r.Stdout, r.Stderr, err)
		}
		t.Logf("children of %s:\n%s", top, r.Stdout)
		return nil
	})
	if again := m.do(t, "postgres", "reload", "/etc/lab/first.yml"); again != found {
		t.Errorf("%s, before %s", again, found)
	}
	if many := m.do(
		t,
		"postgres",
		"reload",
		"",
	); !strings.HasPrefix(many, "ErrManyProcesses ") ||
		!strings.Contains(many, strings.TrimPrefix(found, "ok ")) {
		t.Error(many)
	}
	// SIGHUP has ended none of them.
	if again := m.do(t, "postgres", "find", "/etc/lab/first.yml"); again != found {
		t.Errorf("%s, before %s", again, found)
	}
	cancel()
	<-done
	eventually(t, "both of the second Patroni are gone", func() error {
		if got := m.do(t, "postgres", "find", ""); !strings.HasPrefix(got, "ok ") {
			return errors.New(got)
		}
		return nil
	})
}

func patronictl(t *testing.T, m *member, scope string) {
	if got := m.do(t, "postgres", "ctl", "/etc/lab/patroni.yml", scope, "m1"); got != "ok" {
		t.Error(got)
	}
	if got := m.do(
		t,
		"postgres",
		"ctl",
		"/etc/lab/patroni.yml",
		scope,
		"m9",
	); !strings.HasPrefix(got, "CtlError 1 ") ||
		!strings.Contains(got, "among provided members") {
		t.Error(got)
	}
	if got := m.do(t, "postgres", "ctl", "/etc/lab/patroni.yml", scope, "--help"); !strings.HasPrefix(got, "CtlError ") {
		t.Error(got)
	}
	if got := m.do(t, "postgres", "ctl", "/etc/lab/patroni.yml", "", ""); !strings.HasPrefix(got, "ErrNoCtl ") {
		t.Error(got)
	}
	if got := m.do(t, "postgres", "ctl", "/nonexistent.yml", scope, "m1"); !strings.HasPrefix(got, "CtlError ") {
		t.Error(got)
	}
	// The DCS is gone.
	m.CutDCS()
	if got := m.do(t, "postgres", "ctl", "/etc/lab/patroni.yml", scope, "m1"); !strings.HasPrefix(got, "CtlError ") {
		t.Error(got)
	}
	m.HealDCS()
}

// credentials changes the REST API of the running Patroni to TLS with a client certificate and a password, by SIGHUP.
func credentials(t *testing.T, m *member, scope string) {
	ctx := t.Context()
	dir := t.TempDir()
	authority := newAuthority(t)
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, authority.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := authority.issue(t, "m1", net.ParseIP(m.Address))
	m.write(t, "ca.pem", authority.pem)
	m.write(t, "rest.pem", append(cert, key...))
	cert, key = authority.issue(t, "pgbaton", nil)
	ours := patroni.Options{
		URL:      strings.Replace(m.URL(), "http:", "https:", 1),
		CAFile:   ca,
		CertFile: filepath.Join(dir, "c.pem"),
		KeyFile:  filepath.Join(dir, "k.pem"),
		Username: "u",
		Password: secret,
	}
	if err := errors.Join(os.WriteFile(ours.CertFile, cert, 0o600), os.WriteFile(ours.KeyFile, key, 0o600)); err != nil {
		t.Fatal(err)
	}
	call := func(change func(*patroni.Options)) error {
		o := ours
		change(&o)
		c, err := patroni.New(o)
		if err != nil {
			t.Fatal(err)
		}
		return c.Reload(ctx)
	}
	same := func(*patroni.Options) {}
	secure := func(verify string) {
		t.Helper()
		m.writeConfig(t, func(config map[string]any) {
			rest := config["restapi"].(map[string]any)
			rest["certfile"], rest["cafile"], rest["verify_client"] = "/etc/lab/rest.pem", "/etc/lab/ca.pem", verify
			rest["authentication"] = map[string]any{"username": "u", "password": secret}
		})
		if got := m.do(t, "postgres", "reload", "/etc/lab/patroni.yml"); !strings.HasPrefix(got, "ok ") {
			t.Fatal(got)
		}
	}

	secure("optional")
	eventually(t, "TLS and a password", func() error { return call(same) })
	for name, change := range map[string]func(*patroni.Options){
		"wrong password": func(o *patroni.Options) { o.Password = "wrong" },
		"no password":    func(o *patroni.Options) { o.Username, o.Password = "", "" },
		"no certificate": func(o *patroni.Options) { o.CertFile, o.KeyFile = "", "" },
	} {
		if err := call(change); !patroni.Unauthorized(err) {
			t.Errorf("%s: %v", name, err)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	if err := call(func(o *patroni.Options) { o.URL = m.URL() }); err == nil || patroni.Unauthorized(err) {
		t.Errorf("HTTP to TLS: %v", err)
	} else {
		t.Logf("HTTP to TLS: unanswered %v, unreachable %v: %v", patroni.Unanswered(err), patroni.Unreachable(err), err)
	}
	inDCS := func(part string) {
		t.Helper()
		eventually(t, "the address in the DCS", func() error {
			c, err := patroni.New(ours)
			if err != nil {
				return err
			}
			cluster, err := c.Cluster(ctx)
			if err != nil || len(cluster.Members) != 1 || !strings.Contains(cluster.Members[0].APIURL, part) {
				return fmt.Errorf("%+v, %v", cluster, err)
			}
			return nil
		})
	}
	// patronictl says so in words, and its exit code is 0.
	inDCS("https://")
	content, err := os.ReadFile(filepath.Join(m.etc, "patroni.yml"))
	if err != nil {
		t.Fatal(err)
	}
	m.write(
		t,
		"wrong.yml",
		append(content[:len(content)-1], `, "ctl": {"insecure": true, "authentication": {"username": "u", "password": "wrong"}}}`...),
	)
	if got := m.do(
		t,
		"postgres",
		"ctl",
		"/etc/lab/wrong.yml",
		scope,
		"m1",
	); !strings.HasPrefix(got, "CtlError 0 ") ||
		!strings.Contains(got, "status code=403") {
		t.Error(got)
	}
	secure("required")
	eventually(t, "a client certificate is asked for", func() error {
		if err := call(func(o *patroni.Options) { o.CertFile, o.KeyFile = "", "" }); !patroni.Unreachable(err) {
			return fmt.Errorf("%v", err)
		}
		return call(same)
	})
	// The address of the REST API in the DCS leads nowhere.
	m.writeConfig(t, func(config map[string]any) {
		config["restapi"].(map[string]any)["connect_address"] = m.Address + ":9"
	})
	if got := m.do(t, "postgres", "reload", "/etc/lab/patroni.yml"); !strings.HasPrefix(got, "ok ") {
		t.Fatal(got)
	}
	inDCS(":9/")
	if got := m.do(t, "postgres", "ctl", "/etc/lab/patroni.yml", scope, "m1"); !strings.HasPrefix(got, "CtlError ") {
		t.Error(got)
	}
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
	next int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{next: 2}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "authority"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

func (a *authority) issue(t *testing.T, name string, ip net.IP) (cert, key []byte) {
	t.Helper()
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:   big.NewInt(a.next),
		Subject:        pkix.Name{CommonName: name},
		NotBefore:      time.Now().Add(-time.Hour),
		NotAfter:       time.Now().Add(24 * time.Hour),
		KeyUsage:       x509.KeyUsageDigitalSignature,
		ExtKeyUsage:    []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		AuthorityKeyId: a.cert.SubjectKeyId,
	}
	if ip != nil {
		template.IPAddresses = []net.IP{ip}
	}
	a.next++
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, own.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(
			&pem.Block{Type: "CERTIFICATE", Bytes: der},
		), pem.EncodeToMemory(
			&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8},
		)
}
