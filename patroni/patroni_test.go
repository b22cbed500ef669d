package patroni_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/pgbaton/pgbaton/patroni"
)

// Patroni's recorded answers, and what the real one (lab_test.go, e2e) will not do on demand.

func TestMain(m *testing.M) {
	if asHostileClient() {
		return
	}
	if os.Getenv(sayAncestor) != "" {
		fmt.Println(patroni.IsAncestor())
		os.Exit(0)
	}
	if words := os.Getenv(childTask); words != "" {
		task(strings.Split(words, "\n"))
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const secret = "s3cret-of-the-api"

func client(t *testing.T, url string) *patroni.Client {
	t.Helper()
	c, err := patroni.New(patroni.Options{URL: url, Username: "u", Password: secret})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// answering starts a server that gives the same answer to everything.
func answering(t *testing.T, status int, body string) *patroni.Client {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return client(t, s.URL)
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestLeader(t *testing.T) {
	seen := time.Unix(1763719200, 0)
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   patroni.Health
	}{
		{"4.0 primary", 200, `{"state": "running", "postmaster_start_time": "2026-11-21 10:00:00.123456+00:00", "role": "primary",
			"server_version": 170005, "xlog": {"location": 67109536}, "timeline": 3,
			"replication": [{"usename": "replicator", "application_name": "m2", "client_addr": "127.80.0.2", "state": "streaming", "sync_state": "async", "sync_priority": 0}],
			"dcs_last_seen": 1763719200, "database_system_identifier": "7574000000000000001",
			"pending_restart": true, "pending_restart_reason": {"max_connections": {"old_value": "100", "new_value": "101"}},
			"patroni": {"version": "4.0.7", "scope": "demo", "name": "m1"}}`,
			patroni.Health{HasLock: true, StatusCode: 200, State: "running", Role: "primary", ServerVersion: 170005, Timeline: 3,
				DCSLastSeen: seen, PendingRestart: true, PendingRestartReason: map[string]patroni.Change{"max_connections": {Old: "100",
					New: "101"}}, Name: "m1", Scope: "demo", Version: "4.0.7", SystemID: "7574000000000000001",
				PostmasterStart: time.Date(2026, 11, 21, 10, 0, 0, 123456000, time.UTC), WAL: patroni.WAL{Written: 67109536}}},
		{"3.0 stopping", 200,
			`{"state": "stopping", "role": "master", "dcs_last_seen": 1763719200, "patroni": {"version": "3.0.4", "scope": "demo"}}`,
			patroni.Health{HasLock: true, StatusCode: 200, State: "stopping", Role: "master", DCSLastSeen: seen, Scope: "demo",
				Version: "3.0.4"}},
		{"4.1 replica, maintenance, no leader", 503, `{"state": "running", "role": "replica", "server_version": 180001, "timeline": null,
			"xlog": {"received_location": 1, "replayed_location": 1, "replayed_timestamp": null, "paused": false}, "replication_state": "streaming",
			"pause": true, "cluster_unlocked": true, "dcs_last_seen": 0, "patroni": {"version": "4.1.5", "scope": "demo", "name": "m2"}}`,
			patroni.Health{StatusCode: 503, State: "running", Role: "replica", ServerVersion: 180001, Maintenance: true,
				ClusterUnlocked: true, WAL: patroni.WAL{Received: 1, Replayed: 1}, Replication: "streaming",
				Name: "m2", Scope: "demo", Version: "4.1.5"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := answering(t, c.status, c.body).Leader(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
			if want := c.want.Role != "replica"; got.Primary() != want {
				t.Errorf("role %s: primary %v", got.Role, got.Primary())
			}
		})
	}
}

func TestDynamic(t *testing.T) {
	for _, c := range []struct {
		body string
		want patroni.Dynamic
	}{
		{`{}`, patroni.Dynamic{TTL: 30 * time.Second, LoopWait: 10 * time.Second, RetryTimeout: 10 * time.Second}},
		{`{"ttl": 20, "loop_wait": 1, "retry_timeout": 3, "primary_stop_timeout": 5}`,
			patroni.Dynamic{TTL: 20 * time.Second, LoopWait: time.Second, RetryTimeout: 3 * time.Second,
				PrimaryStopTimeout: 5 * time.Second}},
		{`{"ttl": "25", "loop_wait": null, "master_stop_timeout": 7.5}`,
			patroni.Dynamic{TTL: 25 * time.Second, LoopWait: 10 * time.Second, RetryTimeout: 10 * time.Second,
				PrimaryStopTimeout: 7500 * time.Millisecond}},
	} {
		got, err := answering(t, 200, c.body).Dynamic(t.Context())
		if err != nil {
			t.Errorf("%s: %v", c.body, err)
			continue
		}
		if got.Raw == nil {
			t.Errorf("%s: no Raw", c.body)
		}
		got.Raw = nil
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", c.body, d)
		}
	}
	for _, bad := range []string{`{"ttl": "soon"}`, `{"ttl": -1}`, `{"ttl": [30]}`, `[]`, `{"postgresql": {"pass": "` + secret} {
		if d, err := answering(t, 200, bad).Dynamic(t.Context()); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %+v, %v", bad, d, err)
		}
	}
	var e *patroni.Error
	if _, err := answering(
		t,
		502,
		"",
	).Dynamic(t.Context()); !errors.As(err, &e) || e.StatusCode != 502 || patroni.Unanswered(err) ||
		patroni.Unreachable(err) {
		t.Errorf("502: %v", err)
	}
}

func TestCluster(t *testing.T) {
	got, err := answering(t, 200, `{"members": [
		{"name": "m1", "role": "leader", "state": "running", "api_url": "http://127.80.0.1:8008/patroni", "host": "127.80.0.1", "port": 5432, "timeline": 3},
		{"name": "m2", "role": "sync_standby", "state": "streaming", "api_url": "http://127.80.0.2:8008/patroni", "host": "127.80.0.2", "port": 5432, "timeline": 3,
		 "pending_restart": true, "pending_restart_reason": {"max_connections": {"old_value": "100", "new_value": "101"}, "x": {"old_value": null, "new_value": 5}},
		 "tags": {"nofailover": true}, "lag": 1234, "receive_lag": 0, "replay_lag": 1234},
		{"name": "m3", "role": "replica", "state": "stopped", "api_url": "http://127.80.0.3:8008/patroni", "lag": "unknown"}],
		"pause": true, "scheduled_switchover": {"at": "2026-11-22T03:00:00.250000+01:00", "from": "m1"}, "scope": "demo"}`).Cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 22, 2, 0, 0, 250e6, time.UTC)
	want := patroni.Cluster{
		Scope:               "demo",
		Paused:              true,
		ScheduledSwitchover: &patroni.Switchover{At: at, From: "m1"},
		Members: []patroni.Member{
			{
				Name:     "m1",
				Role:     "leader",
				State:    "running",
				APIURL:   "http://127.80.0.1:8008/patroni",
				Host:     "127.80.0.1",
				Port:     5432,
				Timeline: 3,
			},
			{
				Name:                 "m2",
				Role:                 "sync_standby",
				State:                "streaming",
				APIURL:               "http://127.80.0.2:8008/patroni",
				Host:                 "127.80.0.2",
				Port:                 5432,
				Timeline:             3,
				PendingRestart:       true,
				PendingRestartReason: map[string]patroni.Change{"max_connections": {Old: "100", New: "101"}, "x": {New: "5"}},
				Tags:                 map[string]any{"nofailover": true},
				Lag:                  patroni.Lag{Bytes: 1234, Known: true},
			},
			{Name: "m3", Role: "replica", State: "stopped", APIURL: "http://127.80.0.3:8008/patroni"},
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if m, ok := got.Leader(); !ok || m.Name != "m1" {
		t.Errorf("leader: %+v", m)
	}
	if _, ok := (patroni.Cluster{}).Leader(); ok {
		t.Error("a leader of nobody")
	}
}

func TestAnswersThatAreNotPatronis(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
	}{
		"proxy's 503": {503, "<html><body><h1>503 Service Unavailable</h1></body></html>"},
		"empty":       {200, ""},
		"other JSON":  {200, `{"status": "ok"}`},
		"null":        {200, "null"},
		"cut":         {200, `{"state": "runn`},
		"huge":        {200, `{"state": "running", "patroni": {"name": "` + strings.Repeat("x", 1<<20) + `"}}`},
		"teapot":      {418, `{"state": "running", "patroni": {}}`},
		"echo":        {500, "you said " + secret + "\r\n\x1b[31m" + strings.Repeat("y", 5000)},
	} {
		t.Run(name, func(t *testing.T) {
			cl := answering(t, c.status, c.body)
			for _, call := range []func() error{
				func() error { _, err := cl.Leader(t.Context()); return err },
				func() error { _, err := cl.Cluster(t.Context()); return err },
			} {
				err := call()
				var e *patroni.Error
				if !errors.As(err, &e) || e.StatusCode != c.status || !e.Connected {
					t.Fatalf("%#v", err)
				}
				if patroni.Unanswered(err) || patroni.Unreachable(err) || patroni.Unauthorized(err) {
					t.Errorf("an answer is an answer: %v", err)
				}
				if s := err.Error(); len(s) > 600 || strings.Contains(s, secret) || strings.ContainsAny(s, "\n\r\x1b") {
					t.Errorf("%d bytes: %q", len(s), s)
				}
			}
		})
	}
}

func TestReload(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		switch {
		case r.Method != http.MethodPost || r.URL.Path != "/reload":
			w.WriteHeader(404)
		case user != "u" || password != secret:
			w.WriteHeader(401)
			_, _ = io.WriteString(w, "not authenticated")
		default:
			w.WriteHeader(202)
			_, _ = io.WriteString(w, "reload scheduled")
		}
	}))
	defer s.Close()
	if err := client(t, s.URL).Reload(t.Context()); err != nil {
		t.Error(err)
	}
	wrong, err := patroni.New(patroni.Options{URL: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	if err := wrong.Reload(t.Context()); !patroni.Unauthorized(err) || !strings.Contains(err.Error(), "not authenticated") {
		t.Errorf("%v", err)
	}
	inURL, err := patroni.New(patroni.Options{URL: strings.Replace(s.URL, "://", "://u:"+secret+"@", 1) + "/"})
	if err != nil {
		t.Fatal(err)
	}
	if err := inURL.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	if err := answering(t, 403, "access is denied").Reload(t.Context()); !patroni.Unauthorized(err) {
		t.Errorf("%v", err)
	}
}

func TestRedirectsAndProxiesAreNotFollowed(t *testing.T) {
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer target.Close()
	t.Setenv("HTTP_PROXY", target.URL)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, target.URL, http.StatusTemporaryRedirect)
	}))
	defer s.Close()
	var e *patroni.Error
	if _, err := client(t, s.URL).Leader(t.Context()); !errors.As(err, &e) || e.StatusCode != 307 {
		t.Errorf("%v", err)
	}
}

// silence listens and never accepts, as Patroni does once its REST loop has ended.
func silence(t *testing.T, backlog int) (url string) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, backlog); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*syscall.SockaddrInet4).Port}
	return "http://" + addr.String()
}

func TestSilence(t *testing.T) {
	url := silence(t, 5)
	connected := 0
	for i := range 8 {
		_, err := client(t, url).Leader(soon(t))
		var e *patroni.Error
		if !errors.As(err, &e) || !patroni.Unanswered(err) || patroni.Unreachable(err) {
			t.Fatalf("call %d: %v", i+1, err)
		}
		if e.Connected {
			connected++
		}
	}
	// The kernel keeps accepting for it until the queue is full: a guard that asks every second sees that.
	if connected == 0 || connected == 8 {
		t.Errorf("%d of 8 calls connected", connected)
	}
	t.Logf("with a queue of 5, %d of 8 calls connected", connected)

	if _, err := client(
		t,
		strings.Replace(silence(t, 5), "http:", "https:", 1),
	).Leader(soon(t)); !patroni.Unanswered(err) ||
		patroni.Unreachable(err) {
		t.Errorf("silent before TLS: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client(t, url).Leader(ctx); err == nil || patroni.Unanswered(err) || patroni.Unreachable(err) {
		t.Errorf("cancelled by us: %v", err)
	}
}

func TestCutAnswers(t *testing.T) {
	for name, send := range map[string]string{
		"nothing":     "",
		"half a head": "HTTP/1.0 200 OK\r\n",
		"half a body": "HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\n{\"state\":",
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Read(make([]byte, 4096))
				_, _ = io.WriteString(c, send)
				_ = c.Close()
			}()
			_, err = client(t, "http://"+l.Addr().String()).Leader(t.Context())
			_ = l.Close()
			<-done
			if !patroni.Unanswered(err) || patroni.Unreachable(err) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := "http://" + l.Addr().String()
	_ = l.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	tls := httptest.NewUnstartedServer(http.NotFoundHandler())
	tls.Config.ErrorLog = log.New(io.Discard, "", 0)
	tls.StartTLS()
	defer tls.Close()
	for name, url := range map[string]string{
		"refused":           gone,
		"TLS to plain HTTP": strings.Replace(plain.URL, "http:", "https:", 1),
		"unknown authority": tls.URL,
	} {
		if _, err := client(t, url).Leader(t.Context()); !patroni.Unreachable(err) || patroni.Unanswered(err) {
			t.Errorf("%s: %v", name, err)
		} else {
			t.Log(err)
		}
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"state": "running", "patroni": {}}`)
	}))
	defer s.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	cert := s.Certificate()
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := patroni.New(patroni.Options{URL: s.URL, CAFile: ca})
	if err != nil {
		t.Fatal(err)
	}
	if h, err := c.Leader(t.Context()); err != nil || !h.HasLock {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestNew(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// Without a writer it would keep whoever opens it.
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]patroni.Options{
		"CA pipe":     {URL: "https://h", CAFile: pipe},
		"key pipe":    {URL: "https://h", CertFile: empty, KeyFile: pipe},
		"no URL":      {},
		"no scheme":   {URL: "127.0.0.1:8008"},
		"scheme":      {URL: "ftp://u:" + secret + "@h"},
		"no host":     {URL: "http://:8008"},
		"unparsable":  {URL: "http://u:" + secret + "@h:port"},
		"query":       {URL: "http://u:" + secret + "@h?x"},
		"no CA":       {URL: "https://h", CAFile: "/nonexistent"},
		"empty CA":    {URL: "https://h", CAFile: empty},
		"half a pair": {URL: "https://h", CertFile: empty},
		"no pair":     {URL: "https://h", CertFile: empty, KeyFile: empty},
	} {
		if _, err := patroni.New(o); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
