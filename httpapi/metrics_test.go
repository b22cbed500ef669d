package httpapi

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/health"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/state"
)

// writeEntry appends to a journal, as a hook does.
func writeEntry(t *testing.T, dir string, e state.Entry) {
	t.Helper()
	line, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "journal.jsonl"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
}

// value is that of a metric, "" when it is not there.
func value(text, series string) string {
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	return m[1]
}

func TestMetrics(t *testing.T) {
	f := &fake{status: fullStatus}
	a := start(t, f, nil)
	now := time.Now()
	entry := func(at time.Duration, e state.Entry) {
		e.Time = now.Add(at)
		writeEntry(t, a.config.StateDir, e)
	}
	entry(0, state.Entry{Hook: "before_stop", Handover: "x", Event: state.EventPauseSent, Pooler: "p:6432"})
	entry(time.Second, state.Entry{Hook: "before_stop", Handover: "x", Event: state.EventDrained, Pooler: "p:6432", Took: time.Second})
	entry(time.Second, state.Entry{Hook: "before_stop", Handover: "x", Event: state.EventReleased, Took: 1200 * time.Millisecond})
	entry(2*time.Second, state.Entry{Hook: "on_role_change", Handover: "y", Event: state.EventResumed, Pooler: "p:6432"})
	entry(
		2*time.Second,
		state.Entry{Hook: "on_role_change", Handover: "y", Event: state.EventEnded, Took: time.Second, Code: member.Failed},
	)
	// Resumed by another member, which has a journal of its own; this member's keeper sees it. What is resumed here much later is another
	// pause.
	entry(time.Minute, state.Entry{Hook: "before_stop", Handover: "z", Event: state.EventPauseSent, Pooler: "p:6432"})
	entry(time.Minute+4*time.Second, state.Entry{Hook: "keeper", Handover: "z", Event: state.EventPauseOver, Pooler: "p:6432"})
	// The same, and the keeper was killed.
	entry(2*time.Minute, state.Entry{Hook: "before_stop", Handover: "v", Event: state.EventPauseSent, Pooler: "p:6432"})
	entry(22*time.Minute, state.Entry{Hook: "on_role_change", Handover: "w", Event: state.EventResumed, Pooler: "p:6432"})
	// A pause by hand has a lease of its own.
	entry(30*time.Minute, state.Entry{Hook: "pause", Handover: "h", Event: state.EventPauseSent, Pooler: "q:6432"})
	entry(30*time.Minute+100*time.Second, state.Entry{Hook: "keeper", Handover: "h", Event: state.EventLeaseExpired, Pooler: "q:6432"})
	entry(3*time.Second, state.Entry{Hook: "reload", Event: state.EventReloaded, Target: "pgbouncer", Pooler: "p:6432"})
	entry(3*time.Second, state.Entry{Hook: "reload", Event: state.EventNotReloaded, Target: "postgres"})
	a.do("GET", "/nosuch", "")
	a.do("BREW", "/v1/status", "")
	a.do("GET", "/v1/status", "")
	text := ""
	eventually(t, "the journal is counted", func() bool {
		text = string(a.do("GET", "/metrics", "").body)
		return value(text, `pgbaton_reloads_total{result="failed",target="postgres"}`) == "1"
	})
	for series, want := range map[string]string{
		`pgbaton_handovers_total{part="guard",result="done"}`:                         "1",
		`pgbaton_handovers_total{part="worker",result="failed"}`:                      "1",
		`pgbaton_handover_duration_seconds_sum{part="guard"}`:                         "1.2",
		`pgbaton_pause_seconds_count`:                                                 "3",
		`pgbaton_pause_seconds_sum`:                                                   "106",
		`pgbaton_leases_expired_total`:                                                "1",
		`pgbaton_drain_seconds_sum`:                                                   "1",
		`pgbaton_reloads_total{result="succeeded",target="pgbouncer"}`:                "1",
		`pgbaton_pooler_paused{pooler="p:6432"}`:                                      "1",
		`pgbaton_pooler_up{pooler="p:6432"}`:                                          "1",
		`pgbaton_config_version{stage="applied",target="pgbouncer"}`:                  "42",
		`pgbaton_errors_total{class="notFound"}`:                                      "1",
		`pgbaton_http_requests_total{code="404",method="GET",route="other"}`:          "1",
		`pgbaton_http_requests_total{code="405",method="other",route="other"}`:        "1",
		`pgbaton_http_requests_total{code="200",method="GET",route="GET /v1/status"}`: "1",
		`pgbaton_http_requests_in_flight`:                                             "1",
	} {
		if got := value(text, series); got != want {
			t.Errorf("%s is %q, want %s", series, got, want)
		}
	}
	if !strings.Contains(text, `pgbaton_lease_expiry_timestamp_seconds{owner="hand"}`) || !strings.Contains(text, "go_goroutines") ||
		!strings.Contains(text, `pgbaton_build_info{`) {
		t.Error(text)
	}
	// Each of ours has a text, and a name in base units.
	for _, m := range regexp.MustCompile(`(?m)^# HELP (pgbaton_\S+) ?(.*)$`).FindAllStringSubmatch(text, -1) {
		if m[2] == "" || strings.Contains(m[1], "milli") {
			t.Errorf("%v", m)
		}
	}
}

// TestScrapes: those that wait for the poolers at the same time are one, and are answered together.
func TestScrapes(t *testing.T) {
	const many = 50
	release := make(chan struct{})
	f := &fake{status: func() health.Status {
		<-release
		return fullStatus()
	}}
	a := start(t, f, nil)
	answers := make(chan answer, many)
	for range many {
		go func() { answers <- a.do("GET", "/metrics", "") }()
	}
	eventually(t, "the status is asked for", func() bool { return f.times() > 0 })
	close(release)
	for range many {
		if got := a.expect(<-answers, 200, ""); value(string(got.body), `pgbaton_pooler_up{pooler="p:6432"}`) != "1" {
			t.Errorf("%s", got.body)
		}
	}
	if f.times() != 1 {
		t.Errorf("the status was asked for %d times", f.times())
	}
	for accept, want := range map[string]string{"": "text/plain",
		"application/openmetrics-text;version=1.0.0": "application/openmetrics-text"} {
		if got := a.expect(
			a.do("GET", "/metrics", "", "Accept: "+accept),
			200,
			"",
		); !strings.HasPrefix(
			got.header.Get("Content-Type"),
			want,
		) {
			t.Errorf("%q: %v", accept, got.header)
		}
	}
	if got := a.expect(a.do("GET", "/metrics", "", "Accept-Encoding: gzip"), 200, ""); got.header.Get("Content-Encoding") != "gzip" ||
		string(got.body[:2]) != "\x1f\x8b" {
		t.Errorf("%v", got.header)
	}
}

// TestManyClients: however many ask, the poolers are asked once a second; a scrape uses an answer for 5 s.
func TestManyClients(t *testing.T) {
	f := &fake{status: func() health.Status {
		time.Sleep(20 * time.Millisecond)
		return fullStatus()
	}}
	a := start(t, f, nil)
	began := time.Now()
	var clients sync.WaitGroup
	errs := make(chan error, 200)
	for range 200 {
		clients.Go(func() {
			for range 5 {
				r, _ := http.NewRequest("GET", a.url+"/v1/status", nil)
				r.Header.Set("Authorization", "Bearer "+readToken)
				response, err := a.client.Do(r)
				if err != nil {
					errs <- err
					return
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
				if response.StatusCode != 200 {
					errs <- fmt.Errorf("%d", response.StatusCode)
					return
				}
			}
		})
	}
	clients.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if most := int(time.Since(began)/statusAge) + 2; f.times() > most {
		t.Errorf("the status was asked for %d times in %s", f.times(), time.Since(began))
	}
	before := f.times()
	for range 20 {
		a.do("GET", "/metrics", "")
	}
	if f.times() > before+1 {
		t.Errorf("%d times for 20 scrapes", f.times()-before)
	}
}

// TestStatusAge: the answer says how old it is.
func TestStatusAge(t *testing.T) {
	a := start(t, &fake{status: fullStatus}, nil)
	got := a.expect(a.do("GET", "/v1/status", ""), 200, "")
	var s struct {
		Member     string
		ObservedAt time.Time
		Conditions []api.Condition
	}
	if err := json.Unmarshal(got.body, &s); err != nil || s.Member != "m1" || time.Since(s.ObservedAt) > 10*time.Second ||
		len(s.Conditions) != 1 || got.header.Get("Age") == "" {
		t.Errorf("%v %v %s", err, got.header, got.body)
	}
}
