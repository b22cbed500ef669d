package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// Tokens of the HTTP mode. None may be in anything that it says.
const (
	viewerToken   = "viewer-0b5d7f2c91e84a36"
	operatorToken = "operator-6f1c3a9e72d04b58"
	strangerToken = "stranger-d4e8b0a617c2953f"
	tokenFile     = "viewer read " + viewerToken + "\noperator operate " + operatorToken + "\n"
)

const serveSection = `serve: {listen: "${HOSTNAME}:8009", tokens_file: /callbacks/tokens}`

// server is a pgbaton serve in a member's container.
type server struct {
	c      *cluster
	m      *lab.Member
	url    string
	log    string // host path
	client *http.Client

	process lab.Process
	ended   chan struct{}
	exec    lab.ExecResult
	err     error
}

// heard is every answer of every server of a cluster, also of those that were killed.
type heard struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (h *heard) add(text []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text.Write(text)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.String()
}

// serve starts it, as Patroni's user, and returns when it is ready.
func (c *cluster) serve(m *lab.Member, args ...string) *server {
	c.t.Helper()
	s := &server{c: c, m: m, url: "http://" + m.Address + ":8009", log: m.LogFile("serve.log"), ended: make(chan struct{}),
		client: &http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	command := append(
		[]string{"sh", "-c", `exec "$@" >>/var/log/lab/serve.log 2>&1`, "sh", "/callbacks/pgbaton", "serve", "--log-level", "debug"},
		args...)
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.ctx))
	go func() {
		defer close(s.ended)
		s.exec, s.err = m.Exec(ctx, nil, command...)
	}()
	c.t.Cleanup(func() {
		cancel()
		<-s.ended
	})
	c.eventually(10*time.Second, m.Name+": serve is ready", func() error {
		select {
		case <-s.ended:
			log, _ := os.ReadFile(s.log)
			c.t.Fatalf("serve has ended: exit code %d, %v\n%s", s.exec.ExitCode, s.err, log)
		default:
		}
		answer, err := s.client.Get(s.url + "/readyz")
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("readyz: %s", answer.Status)
		}
		return nil
	})
	var found bool
	if s.process, found = ours(m, "serve"); !found {
		c.t.Fatal("serve is ready, and there is no such process")
	}
	return s
}

// serveEverywhere starts one on every member, as an operator would have it.
func (c *cluster) serveEverywhere(args ...string) map[string]*server {
	c.t.Helper()
	servers := map[string]*server{}
	for _, m := range c.Members() {
		servers[m.Name] = c.serve(m, args...)
	}
	return servers
}

// kill is kill -9 and nothing else: what it has started lives on.
func (s *server) kill() {
	s.c.t.Helper()
	s.c.must(s.process.Kill(syscall.SIGKILL))
	<-s.ended
}

// ask sends a request and returns status, header and body.
func (s *server) ask(token, method, path, body string) (int, http.Header, string) {
	s.c.t.Helper()
	request, err := http.NewRequestWithContext(s.c.ctx, method, s.url+path, strings.NewReader(body))
	s.c.must(err)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := s.client.Do(request)
	s.c.must(err)
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 4<<20))
	s.c.must(err)
	s.c.heard.add(text)
	return answer.StatusCode, answer.Header, string(text)
}

// operation is what the API says of one.
type operation struct {
	ID, Kind, State string
	Ended           time.Time
	Problem         struct{ Type, Detail, Class string }
	Result          struct {
		Decision string
		Until    time.Time
	}
	Steps []struct{ State, Text string }
}

func (o operation) String() string {
	return fmt.Sprintf(
		"%s %s, %s, problem %q %q, decision %q, steps %v",
		o.Kind,
		o.ID,
		o.State,
		o.Problem.Type,
		o.Problem.Detail,
		o.Result.Decision,
		o.Steps,
	)
}

func (s *server) decode(text string, into any) {
	s.c.t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		s.c.t.Fatalf("%v: %s", err, text)
	}
}

// begin starts an operation and returns its id when it runs, or is over.
func (s *server) begin(path, body string) string {
	s.c.t.Helper()
	status, _, text := s.ask(operatorToken, http.MethodPost, path, body)
	if status != http.StatusAccepted {
		s.c.t.Fatalf("POST %s: %d %s", path, status, text)
	}
	var o operation
	s.decode(text, &o)
	s.c.eventually(5*time.Second, "it runs", func() error {
		if now := s.openOperation(o.ID); now.State == "pending" {
			return fmt.Errorf("%s", now)
		}
		return nil
	})
	return o.ID
}

func (s *server) operation(id string) operation {
	s.c.t.Helper()
	status, _, text := s.ask(viewerToken, http.MethodGet, "/v1/operations/"+id, "")
	if status != http.StatusOK {
		s.c.t.Fatalf("operation %s: %d %s", id, status, text)
	}
	var o operation
	s.decode(text, &o)
	return o
}

// under blocks until an operation runs, and that is on the disk: the first step of what it does comes after that.
func (s *server) under(id string) {
	s.c.t.Helper()
	s.c.eventually(10*time.Second, "operation "+id+" runs", func() error {
		if o := s.operation(id); o.State != "running" || len(o.Steps) < 3 {
			return fmt.Errorf("%s", o)
		}
		return nil
	})
}

// settled waits until an operation does not change any more, and fails the test where it ever says one of the words in between.
func (s *server) settled(id string, limit time.Duration, never ...string) operation {
	s.c.t.Helper()
	var o operation
	s.c.eventually(limit, "operation "+id+" has ended", func() error {
		o = s.operation(id)
		if slices.Contains(never, o.State) {
			s.c.t.Errorf("it says what is not true: %s", o)
		}
		if o.Ended.IsZero() {
			return fmt.Errorf("%s", o)
		}
		return nil
	})
	return o
}

func (s *server) resume() {
	s.c.t.Helper()
	if status, _, text := s.ask(operatorToken, http.MethodPost, "/v1/pgbouncer/resume", ""); status != http.StatusOK {
		s.c.t.Errorf("resume: %d %s", status, text)
	}
}

// metric is a sample of /metrics, 0 where there is none.
func (s *server) metric(series string) float64 {
	s.c.t.Helper()
	_, _, text := s.ask("", http.MethodGet, "/metrics", "")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			s.c.must(err)
			return v
		}
	}
	return 0
}

// peak is VmHWM, the most memory that was ever in use, in bytes.
func (s *server) peak() int64 {
	s.c.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process.PID))
	s.c.must(err)
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		s.c.t.Fatalf("no VmHWM: %s", status)
	}
	kB, err := strconv.ParseInt(string(m[1]), 10, 64)
	s.c.must(err)
	return kB << 10
}

// tells waits until the log has a text.
func (s *server) tells(limit time.Duration, text string) {
	s.c.t.Helper()
	s.c.eventually(limit, fmt.Sprintf("%s: serve says %q", s.m.Name, text), func() error {
		log, err := os.ReadFile(s.log)
		if err == nil && !strings.Contains(string(log), text) {
			err = errNotYet
		}
		return err
	})
}

// keepsSecrets looks through all that it has said and kept, and through the arguments of every process of the container.
func (s *server) keepsSecrets() {
	s.c.t.Helper()
	log, err := os.ReadFile(s.log)
	s.c.must(err)
	state, err := s.m.Exec(s.c.ctx, nil, "sh", "-c", "cat /run/pgbaton/*")
	s.c.must(err)
	processes, err := s.m.Processes()
	s.c.must(err)
	var arguments strings.Builder
	for _, p := range processes {
		if len(p.Args) > 0 && strings.HasPrefix(p.Args[0], "/callbacks/") {
			arguments.WriteString(p.Cmdline() + "\n")
		}
	}
	for where, text := range map[string]string{"the log": string(log), "a state file": state.Stdout, "an argument": arguments.String(),
		"an answer": s.c.heard.String()} {
		if text == "" {
			s.c.t.Errorf("%s: %s is empty", s.m.Name, where)
		}
		for _, secret := range []string{viewerToken, operatorToken, strangerToken, s.c.AdminPassword, s.c.SuperuserPassword} {
			if strings.Contains(text, secret) {
				s.c.t.Errorf("%s: a secret is in %s", s.m.Name, where)
			}
		}
	}
}

// isPaused waits until the poolers are, or are not, paused.
func (c *cluster) isPaused(limit time.Duration, want bool) {
	c.t.Helper()
	c.eventually(limit, fmt.Sprintf("paused is %v", want), func() error {
		names, err := c.Paused(c.ctx)
		if err == nil && (len(names) > 0) != want {
			err = fmt.Errorf("paused: %v", names)
		}
		return err
	})
}

// crowd is many clients that ask for the status.
type crowd struct {
	answers, errors atomic.Int64
	mu              sync.Mutex
	texts           map[string]int
	longest         atomic.Int64 // nanoseconds
	began           time.Time
	stop            context.CancelFunc
	wg              sync.WaitGroup
}

// askTogether starts n clients, each with a connection of its own to one of the servers and a pause between its questions. It returns when
// each has had an answer.
func (c *cluster) askTogether(servers []*server, n int, pause time.Duration) *crowd {
	c.t.Helper()
	ctx, stop := context.WithCancel(c.ctx)
	w := &crowd{texts: map[string]int{}, began: time.Now(), stop: stop}
	var first sync.WaitGroup
	first.Add(n)
	for i := range n {
		url := servers[i%len(servers)].url
		w.wg.Go(func() {
			transport := &http.Transport{MaxIdleConnsPerHost: 1}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
			// Not all in the same moment.
			tick := time.NewTimer(time.Duration(i) * pause / time.Duration(n))
			defer tick.Stop()
			for asked := 0; ; asked++ {
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
				began := time.Now()
				err := getStatus(ctx, client, url)
				if ctx.Err() != nil {
					if asked == 0 {
						first.Done()
					}
					return
				}
				w.answers.Add(1)
				if err != nil {
					w.errors.Add(1)
					w.mu.Lock()
					w.texts[err.Error()]++
					w.mu.Unlock()
				}
				if took := int64(time.Since(began)); took > w.longest.Load() {
					w.longest.Store(took)
				}
				if asked == 0 {
					first.Done()
				}
				tick.Reset(pause)
			}
		})
	}
	first.Wait()
	return w
}

func getStatus(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/v1/status", nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+viewerToken)
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK || !bytes.Contains(text, []byte(`"conditions"`)) {
		return fmt.Errorf("%s: %.200s", answer.Status, text)
	}
	return nil
}

func (w *crowd) end() {
	w.stop()
	w.wg.Wait()
}

const (
	crowdSize  = 200
	crowdPause = 200 * time.Millisecond // of each, so they ask a thousand times a second
	// crowdTime is how long the last crowd asks; the others are there for the switchover.
	crowdTime = 30 * time.Second
)

// TestServeLoad: many who look do not disturb what they look at.
func TestServeLoad(t *testing.T) {
	oneSuite(t, "sid", func(t *testing.T, suite string) {
		c := start(t, lab.Options{Suite: suite}.Quick(), serveSection)
		c.must(c.write("tokens", tokenFile))
		servers := c.serveEverywhere()
		var loaded, alone []time.Duration // stalls
		var asked, failed int64
		var longest, lasted, crowdLongest time.Duration
		l := c.load()
		type span struct {
			from, to time.Time
			into     *[]time.Duration
		}
		var spans []span
		// Servers, poolers, load and the clients themselves share two cores, so three of a kind scatter by more than what is looked for.
		n := 2 * rounds(5, 15)
		for i := range n {
			into, crowded := &alone, i%2 == 1
			var w *crowd
			if crowded {
				// Of the one that stops, the one that becomes primary, and the third.
				into, w = &loaded, c.askTogether(slices.Collect(maps.Values(servers)), crowdSize, crowdPause)
			}
			from := time.Now()
			c.switchover()
			l.flowing(20)
			spans = append(spans, span{from, time.Now(), into})
			c.healthy()
			c.asBefore()
			if !crowded {
				continue
			}
			for (*full || i == n-1) && time.Since(w.began) < crowdTime {
				l.flowing(100)
			}
			w.end()
			crowdLongest = max(crowdLongest, time.Since(w.began))
			asked, failed, lasted = asked+w.answers.Load(), failed+w.errors.Load(), lasted+time.Since(w.began)
			longest = max(longest, time.Duration(w.longest.Load()))
			if len(w.texts) > 0 {
				t.Errorf("clients of serve saw %v", w.texts)
			}
		}
		result := l.stop()
		c.noErrors(result)
		for _, s := range spans {
			*s.into = append(*s.into, result.StallBetween(s.from, s.to).Length())
		}
		t.Logf(
			"%d clients for %s, %d answers, %d errors, slowest %s",
			crowdSize,
			lasted.Round(time.Second),
			asked,
			failed,
			longest.Round(time.Millisecond),
		)
		// The clients themselves take a part of the two cores, on a slow machine a larger one.
		c.atMost(1.5, 3, "with clients of serve", loaded, "those without", alone)
		if crowdLongest < crowdTime {
			t.Errorf("no crowd has asked for %s", crowdTime)
		}
		// Each waits for its answer before it pauses: who is answered at once asks five times a second.
		if most := float64(crowdSize) * lasted.Seconds() / crowdPause.Seconds(); float64(asked) < most/2 {
			t.Errorf("%d answers, less than half of the %.0f that were to be had: the clients were held up", asked, most)
		}
		for name, s := range servers {
			t.Logf("%s: serve has used %.1f MiB at most", name, float64(s.peak())/(1<<20))
			if s.peak() >= 40<<20 {
				t.Errorf("%s: serve has used %d bytes, less than 40 MiB is claimed", name, s.peak())
			}
		}

		// And each handover was counted, by the one that stopped and the one that became primary.
		sum := func(series string) (total float64) {
			for _, s := range servers {
				total += s.metric(series)
			}
			return total
		}
		handovers := float64(len(loaded) + len(alone))
		for _, series := range []string{`pgbaton_handovers_total{part="guard",result="done"}`,
			`pgbaton_handovers_total{part="worker",result="done"}`,
			`pgbaton_handover_duration_seconds_count{part="guard"}`, `pgbaton_drain_seconds_count`} {
			c.eventually(5*time.Second, series, func() error {
				if got := sum(series); got != handovers {
					return fmt.Errorf("%g of %g", got, handovers)
				}
				return nil
			})
		}
		// Each pause was ended by another member, and none is taken for one that lasted until this member was primary again.
		c.eventually(5*time.Second, "the pauses are measured", func() error {
			if all, short := sum(
				"pgbaton_pause_seconds_count",
			), sum(
				`pgbaton_pause_seconds_bucket{le="5"}`,
			); all < handovers ||
				short != all {
				return fmt.Errorf("%g pauses, %g of them shorter than 5 s, of %g handovers", all, short, handovers)
			}
			return nil
		})
		if got := sum("pgbaton_leases_expired_total"); got != 0 {
			t.Errorf("%g leases have expired", got)
		}
		_, _, metrics := servers["m1"].ask("", http.MethodGet, "/metrics", "")
		c.promtool(metrics)
	})
}

// promtool has Prometheus' own tool judge the metrics.
func (c *cluster) promtool(metrics string) {
	c.t.Helper()
	path, err := exec.CommandContext(c.ctx, filepath.Join("..", "scripts", "promtool.sh")).Output()
	c.must(err)
	check := exec.CommandContext(c.ctx, strings.TrimSpace(string(path)), "check", "metrics")
	check.Stdin = strings.NewReader(metrics)
	if said, err := check.CombinedOutput(); err != nil || len(said) > 0 {
		c.t.Errorf("promtool check metrics: %v\n%s", err, said)
	}
}

// TestServeKilled: after kill -9 in the middle of an operation, the next server tells what became of it.
func TestServeKilled(t *testing.T) {
	togetherOn(t, "trixie", func(t *testing.T, suite string) {
		const lease = 6 * time.Second
		c := startQuiet(t, lab.Options{Suite: suite}.Quick(), serveSection, "versions: {postgres: {setting: pgbaton.config_version}}")
		c.must(c.write("tokens", tokenFile))
		leader := c.leader()
		s := c.serve(leader)
		paused := c.watchPaused()

		// A pause that cannot drain: a transaction is open for longer than the lease.
		end := c.holdTransaction(lease + 4*time.Second)
		id := s.begin("/v1/pgbouncer/pause", fmt.Sprintf(`{"lease": "%s", "timeout": "60s"}`, lease))
		c.isPaused(5*time.Second, true)
		if o := s.operation(id); o.State != "running" {
			t.Errorf("it has not drained, and it says: %s", o)
		}
		s.kill()
		s = c.serve(leader)
		if o := s.operation(id); o.State != "unknown" || !o.Ended.IsZero() {
			t.Errorf("while the pause stands: %s", o)
		}
		if status, _, text := s.ask(
			operatorToken,
			http.MethodGet,
			"/v1/status",
			"",
		); status != http.StatusOK ||
			!strings.Contains(text, "PoolersPaused") {
			t.Errorf("status: %d %s", status, text)
		}
		o := s.settled(id, lease+15*time.Second, "succeeded", "running", "pending")
		t.Logf("a pause that did not drain: %s", o)
		if o.State != "failed" || !strings.HasSuffix(o.Problem.Type, "#interrupted") {
			t.Errorf("nothing of it stands: %s", o)
		}
		c.isPaused(time.Second, false)
		if longest := paused(); longest > lease+3*time.Second {
			t.Errorf("a pooler was paused for %s, the lease is %s", longest, lease)
		}
		c.must(end())

		// A reload that waits for its version, which comes while nobody serves, or afterwards, or never. Patroni itself applies it.
		version := func(v string) {
			status, answer, err := leader.REST(c.ctx, http.MethodPatch, "/config",
				map[string]any{"postgresql": map[string]any{"parameters": map[string]any{"pgbaton.config_version": v}}})
			if err != nil || status != http.StatusOK {
				t.Fatalf("PATCH /config: %d %s %v", status, answer, err)
			}
			c.eventually(20*time.Second, "PostgreSQL runs version "+v, func() error {
				_, err := leader.SQL(
					c.ctx,
					fmt.Sprintf("SELECT 1 / coalesce((current_setting('pgbaton.config_version', true) = '%s')::int, 0)", v),
				)
				return err
			})
		}
		id = s.begin("/v1/postgres/reload", `{"configVersion": "42", "timeout": "60s"}`)
		s.under(id)
		s.kill()
		version("42")
		s = c.serve(leader)
		o = s.settled(id, 10*time.Second, "failed", "running", "pending")
		t.Logf("a reload whose version came while nobody served: %s", o)
		if o.State != "succeeded" || !strings.Contains(o.Result.Decision, "42") {
			t.Errorf("version 42 runs: %s", o)
		}

		id = s.begin("/v1/postgres/reload", `{"configVersion": "43", "timeout": "60s"}`)
		s.under(id)
		s.kill()
		s = c.serve(leader)
		if o := s.operation(id); o.State != "unknown" || !o.Ended.IsZero() {
			t.Errorf("its time is not over, and it may still come: %s", o)
		}
		version("43")
		o = s.settled(id, 15*time.Second, "failed", "running", "pending")
		t.Logf("a reload whose version came afterwards: %s", o)
		if o.State != "succeeded" || !strings.Contains(o.Result.Decision, "43") {
			t.Errorf("version 43 runs: %s", o)
		}

		id = s.begin("/v1/postgres/reload", `{"configVersion": "44", "timeout": "3s"}`)
		s.under(id)
		s.kill()
		s = c.serve(leader)
		o = s.settled(id, 30*time.Second, "succeeded", "failed", "running", "pending")
		t.Logf("a reload whose version did not come: %s", o)
		if o.State != "unknown" || !strings.HasSuffix(o.Problem.Type, "#unknown-outcome") {
			t.Errorf("nothing tells: %s", o)
		}
		// Nothing is in the way of the next one.
		id = s.begin("/v1/pgbouncer/pause", `{"lease": "20s"}`)
		if o := s.settled(id, 10*time.Second); o.State != "succeeded" {
			t.Errorf("pause: %s", o)
		}
		s.resume()
		c.asBefore()
		s.keepsSecrets()
	})
}

// TestServeToken: a token lives as long as its line.
func TestServeToken(t *testing.T) {
	togetherOn(t, "sid", func(t *testing.T, suite string) {
		c := startQuiet(t, lab.Options{Suite: suite, Members: 1}.Quick(), serveSection)
		c.must(c.write("tokens", tokenFile))
		s := c.serve(c.leader())
		status := func(token string) int {
			code, _, _ := s.ask(token, http.MethodGet, "/v1/status", "")
			return code
		}
		for token, want := range map[string]int{viewerToken: 200, operatorToken: 200, strangerToken: 401, "": 401,
			viewerToken[:len(viewerToken)-1]: 401, viewerToken + "0": 401} {
			if got := status(token); got != want {
				t.Errorf("a token of %d characters: %d, want %d", len(token), got, want)
			}
		}
		if code, _, text := s.ask(viewerToken, http.MethodPost, "/v1/pgbouncer/pause", ""); code != http.StatusForbidden {
			t.Errorf("pause with scope read: %d %s", code, text)
		}

		// It watches an operation that takes its time.
		end := c.holdTransaction(12 * time.Second)
		id := s.begin("/v1/pgbouncer/pause", `{"timeout": "20s", "lease": "25s"}`)
		request, err := http.NewRequestWithContext(c.ctx, http.MethodGet, s.url+"/v1/operations/"+id+"/events", nil)
		c.must(err)
		request.Header.Set("Authorization", "Bearer "+viewerToken)
		stream, err := s.client.Do(request)
		c.must(err)
		closed := make(chan time.Time, 1)
		go func() {
			defer stream.Body.Close()
			_, _ = io.Copy(io.Discard, stream.Body)
			closed <- time.Now()
		}()

		removed := time.Now()
		c.must(c.write("tokens", strings.Replace(tokenFile, "viewer read "+viewerToken+"\n", "", 1)))
		c.eventually(2*time.Second, "the token does not work any more", func() error {
			if code := status(viewerToken); code != http.StatusUnauthorized {
				return fmt.Errorf("%d", code)
			}
			return nil
		})
		refusedAfter := time.Since(removed)
		select {
		case at := <-closed:
			t.Logf(
				"the token was refused %s after it was removed, its event stream ended after %s",
				refusedAfter.Round(time.Millisecond),
				at.Sub(removed).Round(time.Millisecond),
			)
			if o := s.openOperation(id); !o.Ended.IsZero() {
				t.Errorf("the stream ended with the operation: %s", o)
			}
		case <-time.After(2500 * time.Millisecond):
			t.Error("the event stream of a token that was removed goes on")
		}
		if got := status(operatorToken); got != 200 {
			t.Errorf("the other token: %d", got)
		}
		c.must(end())
		s.resume()
		c.must(c.write("tokens", tokenFile))
		c.eventually(2*time.Second, "the token works again", func() error {
			if code := status(viewerToken); code != http.StatusOK {
				return fmt.Errorf("%d", code)
			}
			return nil
		})
		c.asBefore()

		// SIGTERM ends it well: what runs is finished, and what stands is kept by a process of its own.
		const lease = 8 * time.Second
		end = c.holdTransaction(3 * time.Second)
		id = s.begin("/v1/pgbouncer/pause", fmt.Sprintf(`{"timeout": "15s", "lease": "%s"}`, lease))
		paused := c.watchPaused()
		c.must(s.process.Kill(syscall.SIGTERM))
		<-s.ended
		if s.err != nil || s.exec.ExitCode != 0 {
			t.Errorf("after SIGTERM: exit code %d, %v", s.exec.ExitCode, s.err)
		}
		c.must(end())
		c.isPaused(time.Second, true)
		c.isPaused(lease+3*time.Second, false)
		if longest := paused(); longest > lease+3*time.Second {
			t.Errorf("paused for %s, the lease is %s", longest, lease)
		}
		c.asBefore()
		s = c.serve(c.leader())
		if o := s.operation(id); o.State != "succeeded" {
			t.Errorf("it was finished before the end: %s", o)
		}
		_ = status(strangerToken)
		s.keepsSecrets()
	})
}

// openOperation is operation with the token that stays.
func (s *server) openOperation(id string) (o operation) {
	s.c.t.Helper()
	_, _, text := s.ask(operatorToken, http.MethodGet, "/v1/operations/"+id, "")
	s.decode(text, &o)
	return o
}

// TestServeReconcile: with serve --reconcile on the primary no pause outlives its lease for long, whoever was killed; and none is ended
// before.
func TestServeReconcile(t *testing.T) {
	togetherOn(t, "trixie", func(t *testing.T, suite string) {
		const (
			lease = 4 * time.Second
			hand  = 13 * time.Second // longer than a pause without a lease of its own would be left alone
			late  = 10*time.Second +
				2500*time.Millisecond // the reconciler's grace, 5 s, and a round, 5 s +10 %; and what a busy machine takes
		)
		c := startQuiet(t, lab.Options{Suite: suite, Poolers: 3}.Quick())
		c.must(c.write("tokens", tokenFile))
		// The guard holds p1, a person p2, somebody with psql p3; serve sees to them all.
		yaml := func(name, pooler string) {
			sections, err := readmeConfig()
			c.must(err)
			c.must(c.write(name, overlay(sections, poolersYAML(pooler, 6432, "pgbouncer-admin-password"),
				fmt.Sprintf("pause: {lease: %s, attempt: 2s, budget: 15s}", lease), serveSection)))
		}
		yaml("pgbaton.yaml", "p1")
		yaml("hand.yaml", "p2")
		yaml("serve.yaml", "pgbouncers")
		servers := c.serveEverywhere("--reconcile", "--config", "/callbacks/serve.yaml")
		p1, p2, p3 := c.Poolers()[0], c.Poolers()[1], c.Poolers()[2]

		// No callback: nobody but serve is left when guard and keeper are gone.
		c.use(way{"guard only", pgbatonWay.beforeStop, ""})
		old := c.leader()
		servers[old.Name].kill() // it would take up the lease of the guard's pause
		delete(servers, old.Name)
		l := c.load()
		end := c.holdTransaction(8 * time.Second)
		go func() { _, _ = c.Switchover(c.ctx, "") }()
		c.eventually(20*time.Second, "the guard has paused", func() error {
			if paused, err := p1.Paused(c.ctx); err != nil || !paused {
				return errNotYet
			}
			return nil
		})
		began := time.Now()
		for _, name := range []string{"before_stop", "_keep"} {
			victim, found := ours(old, name)
			if !found {
				t.Fatalf("there is no %s", name)
			}
			c.must(victim.Kill(syscall.SIGKILL))
		}
		_ = end() // cut by the stop, as without us
		m, err := c.WaitLeader(c.ctx, old)
		c.must(err)
		promoted := time.Now()
		s := servers[m.Name]
		t.Logf("guard and keeper killed; %s is the primary %s later", m.Name, promoted.Sub(began).Round(time.Millisecond))

		asked := time.Now() // the lease begins between this and the answer
		r, err := m.Exec(c.ctx, nil, "/callbacks/pgbaton", "pause", "--config", "/callbacks/hand.yaml", "--lease", hand.String())
		c.must(err)
		handed := time.Now()
		if r.ExitCode != 0 {
			t.Fatalf("pause: %s%s", r.Stdout, r.Stderr)
		}
		keeper, found := ours(m, "_keep")
		if !found {
			t.Fatal("there is no keeper")
		}
		c.must(keeper.Kill(syscall.SIGKILL))
		_, _, err = p3.Admin(c.ctx, "PAUSE")
		c.must(err)

		// free waits until a pooler is not paused any more.
		free := func(p *lab.Pooler, limit time.Duration) time.Time {
			t.Helper()
			c.eventually(limit, p.Name+" is resumed", func() error {
				paused, err := p.Paused(c.ctx)
				if err == nil && paused {
					err = errNotYet
				}
				return err
			})
			return time.Now()
		}
		guards := free(p1, lease+2*late)
		hands := free(p2, hand+2*late)
		t.Logf("the guard's pause, lease %s, was ended %s after the promotion; the one by hand, lease %s, after %s",
			lease, guards.Sub(promoted).Round(time.Millisecond), hand, hands.Sub(handed).Round(time.Millisecond))
		// Its lease is known on the old primary only, so its time runs from the moment at which the new one has seen it.
		if took := guards.Sub(promoted); took > lease+late+5500*time.Millisecond {
			t.Errorf("the guard's pause was ended %s after the promotion", took)
		}
		if hands.Sub(asked) < hand || hands.Sub(handed) > hand+late {
			t.Errorf("the pause by hand was ended after %s to %s, its lease was %s", hands.Sub(handed), hands.Sub(asked), hand)
		}
		s.tells(time.Second, "had outlived its lease")
		s.tells(time.Second, "not by pgbaton")
		if paused, err := p3.Paused(c.ctx); err != nil || !paused {
			t.Errorf("psql's pause was ended (%v)", err)
		}
		// The lease of the pause by hand was taken up, the guard's could not be.
		for series, want := range map[string]float64{`pgbaton_reconciled_total{done="resumed"}`: 1, `pgbaton_leases_expired_total`: 2} {
			c.eventually(3*time.Second, series, func() error {
				if got := s.metric(series); got != want {
					return fmt.Errorf("%g, want %g", got, want)
				}
				return nil
			})
		}
		if s.metric(`pgbaton_reconciled_total{done="reported"}`) == 0 {
			t.Error("psql's pause was not counted")
		}
		if _, _, err := p3.Admin(c.ctx, "RESUME"); err != nil {
			t.Error(err)
		}
		l.flowing(20)
		l.end()
		c.healthy()
		c.asBefore()
		for _, s := range servers {
			_ = s.metric("") // all have said something
			s.keepsSecrets()
		}
	})
}
