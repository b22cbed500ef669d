package patroni_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgbaton/pgbaton/patroni"
)

// TestWrites: each write is sent once, as Patroni reads it, with the credentials, and its answers are told apart.
func TestWrites(t *testing.T) {
	type call struct {
		Line, User string
		Body       map[string]any
	}
	var calls []call
	status, answer := http.StatusOK, "done"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := call{Line: r.Method + " " + r.URL.Path}
		c.User, _, _ = r.BasicAuth()
		if text, _ := io.ReadAll(r.Body); len(text) > 0 {
			if err := json.Unmarshal(text, &c.Body); err != nil {
				t.Error(err)
			}
		}
		calls = append(calls, c)
		w.WriteHeader(status)
		fmt.Fprint(w, answer)
	}))
	defer server.Close()
	client, err := patroni.New(patroni.Options{URL: server.URL, Username: "u", Password: secret})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 12, 1, 3, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		what string
		do   func() error
		want call
	}{
		{"switchover", func() error {
			said, err := client.Switchover(t.Context(), patroni.SwitchoverOrder{Leader: "m1", Candidate: "m2", At: at})
			if said != "done" {
				t.Errorf("it said %q", said)
			}
			return err
		}, call{"POST /switchover", "u", map[string]any{"leader": "m1", "candidate": "m2", "scheduled_at": "2026-12-01T03:00:00Z"}}},
		{"to whom Patroni likes", func() error {
			_, err := client.Switchover(t.Context(), patroni.SwitchoverOrder{Leader: "m1"})
			return err
		}, call{"POST /switchover", "u", map[string]any{"leader": "m1"}}},
		{"taken back", func() error { return client.CancelSwitchover(t.Context()) }, call{"DELETE /switchover", "u", nil}},
		{"restart", func() error {
			_, err := client.Restart(t.Context(), true)
			return err
		}, call{"POST /restart", "u", map[string]any{"restart_pending": true}}},
		{"without a password", func() error {
			_, err := client.Bare().Restart(t.Context(), false)
			return err
		}, call{"POST /restart", "", map[string]any{}}},
	} {
		calls = nil
		if err := c.do(); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if diff := cmp.Diff([]call{c.want}, calls); diff != "" {
			t.Errorf("%s: %s", c.what, diff)
		}
	}

	answer = `{"ttl": 30, "pgbaton_run_0123456789ab": {}}`
	all, err := client.PatchConfig(t.Context(), map[string]any{"pgbaton": nil})
	if err != nil || all["ttl"] != 30.0 {
		t.Error(all, err)
	}
	for code, want := range map[int]struct{ refused, unauthorized bool }{
		409: {true, false}, 412: {true, false}, 400: {true, false}, 422: {true, false}, 503: {}, 500: {},
		401: {true, true}, 403: {true, true},
	} {
		status, answer, calls = code, "no", nil
		_, err := client.Switchover(t.Context(), patroni.SwitchoverOrder{Leader: "m1"})
		_, patchErr := client.PatchConfig(t.Context(), map[string]any{"a": 1})
		if patroni.Refused(patchErr) != want.refused || patroni.Refused(err) != want.refused ||
			patroni.Unauthorized(err) != want.unauthorized || len(calls) != 2 {
			t.Errorf("%d: %v, %v, %d calls", code, err, patchErr, len(calls))
		}
	}
}

// TestAt: the credentials go to the other members, and never from TLS to none.
func TestAt(t *testing.T) {
	tls, err := patroni.New(patroni.Options{URL: "https://m1:8008", Username: "u", Password: secret})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := patroni.New(patroni.Options{URL: "http://m1:8008", Username: "u", Password: secret})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from *patroni.Client
		url  string
		ok   bool
	}{
		{tls, "https://m2:8008/patroni", true}, {tls, "http://m2:8008/patroni", false}, {tls.Bare(), "http://m2:8008/patroni", true},
		{plain, "http://m2:8008/patroni", true}, {plain, "https://m2:8008/patroni", true}, {plain, "", false},
		{plain, "file:///etc/passwd", false}, {plain, "http:///patroni", false}, {plain, "http://x:" + secret + "@%zz", false},
	} {
		_, err := c.from.At(c.url)
		if (err == nil) != c.ok || err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", c.url, err)
		}
	}
	var e *patroni.Error
	dead, err := plain.At("http://127.0.0.1:1/patroni")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dead.Restart(t.Context(), false); !errors.As(err, &e) || !patroni.Unreachable(err) || patroni.Refused(err) {
		t.Error(err)
	}
}

// TestHealthWAL: what a member says of its WAL, and times as Python writes them.
func TestHealthWAL(t *testing.T) {
	answers := map[string]patroni.Health{
		`"role": "replica", "postmaster_start_time": "2026-11-30 09:15:01.123456+00:00", "replication_state": "streaming", "sync_standby": true,
 "xlog": {"received_location": 67419584, "replayed_location": 67419000, "replayed_timestamp": "2026-11-30 09:15:00.5+00:00", "paused": true},
 "tags": {"nofailover": true}, "watchdog_failed": true`: {Role: "replica", Replication: "streaming", SyncStandby: true,
			WatchdogFailed: true, PostmasterStart: time.Date(2026, 11, 30, 9, 15, 1, 123456000, time.UTC),
			WAL: patroni.WAL{Received: 67419584, Replayed: 67419000, ReplayPaused: true,
				ReplayedAt: time.Date(2026, 11, 30, 9, 15, 0, 500000000, time.UTC)}, Tags: map[string]any{"nofailover": true}},
		`"role": "primary", "postmaster_start_time": "2026-11-30 09:15:01.123 +00", "xlog": {"location": 67419584}, "tags": []`: {
			Role: "primary", WAL: patroni.WAL{Written: 67419584}},
		`"role": "primary", "xlog": "none"`: {Role: "primary"},
	}
	for body, want := range answers {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"state": "running", "patroni": {"version": "4.0.7", "scope": "demo", "name": "m1"}, `+body+`}`)
		}))
		client, err := patroni.New(patroni.Options{URL: server.URL})
		if err != nil {
			t.Fatal(err)
		}
		got, err := client.Leader(t.Context())
		server.Close()
		if err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		same := cmp.Equal(got.WAL, want.WAL, cmp.Comparer(time.Time.Equal)) && got.PostmasterStart.Equal(want.PostmasterStart) &&
			got.Replication == want.Replication && got.SyncStandby == want.SyncStandby && got.WatchdogFailed == want.WatchdogFailed &&
			len(got.Tags) == len(want.Tags)
		if !same {
			t.Errorf("%s: %+v", body, got)
		}
	}
}
