package health

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/patroni"
)

func TestMerge(t *testing.T) {
	hooks := api.Finding{ID: "hooks-missing", Severity: api.SeverityError, Subject: "postgresql", Found: "Patroni does not run: a"}
	other := hooks
	other.Found = "Patroni does not run: b"
	lag := api.Finding{ID: "replica-lag", Severity: api.SeverityWarning, Subject: "m3", Found: "member m3 is 20 MiB behind"}
	later := lag
	later.Found = "member m3 is 21 MiB behind"
	strange := api.Finding{ID: "of-a-later-version", Severity: "fatal", Found: "x\ny"}
	lying := hooks
	lying.Severity = api.SeverityWarning
	own := func(findings ...api.Finding) api.CheckReport {
		r := api.CheckReport{Member: "m1", Scope: "demo", OK: true, Findings: findings}
		finish(&r)
		return r
	}
	for name, c := range map[string]struct {
		own    api.CheckReport
		others []answer
		want   string // ids and from where
		ok     bool
		failed string // members of which no good check is there
	}{
		"nothing":           {own(), []answer{{member: "m2"}, {member: "m3"}}, "", true, ""},
		"the same from two": {own(hooks), []answer{{member: "m2", report: own(hooks)}}, "hooks-missing m1,m2", false, "m1 m2"},
		"not the same": {own(hooks), []answer{{member: "m2", report: own(other)}}, "hooks-missing m1; hooks-missing " +
			"m2", false, "m1 m2"},
		"another's only":        {own(), []answer{{member: "m2", report: own(hooks)}}, "hooks-missing m2", false, "m2"},
		"a figure that changes": {own(lag), []answer{{member: "m2", report: own(later)}}, "replica-lag m1,m2", true, ""},
		"errors first": {own(lag), []answer{{member: "m2", report: own(hooks)}}, "hooks-missing m2; replica-lag m1", false,
			"m2"},
		"one cannot be asked":      {own(), []answer{{member: "m2", err: errors.New("refused")}}, "member-not-checked m1", true, "m2"},
		"an id of another":         {own(), []answer{{member: "m2", report: own(strange)}}, "of-a-later-version m2", true, ""},
		"its severity is ours":     {own(), []answer{{member: "m2", report: own(lying)}}, "hooks-missing m2", false, "m2"},
		"twice on the same member": {own(lag, later), nil, "replica-lag m1", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := merge(c.own, c.others)
			var found []string
			for _, f := range got.Findings {
				found = append(found, f.ID+" "+strings.Join(f.SeenFrom, ","))
				if strings.Contains(f.Found, "\n") || f.Severity != api.SeverityError && f.Severity != api.SeverityWarning {
					t.Errorf("%+v", f)
				}
			}
			var failed []string
			for _, m := range got.Members {
				if !m.OK {
					failed = append(failed, m.Member)
				}
			}
			if strings.Join(found, "; ") != c.want || got.OK != c.ok || strings.Join(failed, " ") != c.failed ||
				len(got.Members) != 1+len(c.others) || got.Findings == nil {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestAsk: another member's serve is asked with what members says, and nobody else gets the token.
func TestAsk(t *testing.T) {
	const token = "a-token-of-sixteen-characters"
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var elsewhere http.Header
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { elsewhere = r.Header }))
	t.Cleanup(thief.Close)
	handler := func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer "+token:
			w.WriteHeader(http.StatusUnauthorized)
		default:
			_ = json.NewEncoder(w).Encode(api.CheckReport{Member: "m2", OK: true})
		}
	}
	secure, plain := httptest.NewTLSServer(http.HandlerFunc(handler)), httptest.NewServer(http.HandlerFunc(handler))
	t.Cleanup(secure.Close)
	t.Cleanup(plain.Close)
	moved := httptest.NewServer(http.RedirectHandler(thief.URL, http.StatusTemporaryRedirect))
	t.Cleanup(moved.Close)
	portOf := func(s *httptest.Server) string {
		u, err := url.Parse(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		return u.Port()
	}
	ca := write("ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})))
	good := config.Members{URL: "https://{host}:" + portOf(secure), TokenFile: write("token", token+"\n"), CAFile: ca}
	local := patroni.Member{Name: "m2", Host: "127.0.0.1"}
	with := func(change func(*config.Members)) config.Members {
		c := good
		change(&c)
		return c
	}
	for name, c := range map[string]struct {
		config config.Members
		member patroni.Member
		wrong  string // in the error; "" where there is none
	}{
		"good":              {good, local, ""},
		"over http at home": {with(func(c *config.Members) { c.URL = "http://{host}:" + portOf(plain) }), local, ""},
		"its name": {with(func(c *config.Members) { c.URL = "https://{name}:" + portOf(secure) }),
			patroni.Member{Name: "127.0.0.1"}, ""},
		"not set":           {config.Members{}, local, "members.url is not set"},
		"another authority": {with(func(c *config.Members) { c.CAFile = "" }), local, "certificate"},
		"no such authority": {with(func(c *config.Members) { c.CAFile = filepath.Join(dir, "none") }), local, "CA file"},
		"no such token":     {with(func(c *config.Members) { c.TokenFile = filepath.Join(dir, "none") }), local, "members.token_file"},
		"no token":          {with(func(c *config.Members) { c.TokenFile = "" }), local, "401"},
		"a token over http": {with(func(c *config.Members) { c.URL = "http://{host}:1" }), patroni.Member{Name: "m2", Host: "192.0.2.1"},
			"https only"},
		"a host that is none":   {good, patroni.Member{Name: "m2", Host: "user@127.0.0.1"}, "no URL"},
		"a host with a path":    {good, patroni.Member{Name: "m2", Host: "127.0.0.1/x?"}, "no URL"},
		"nobody answers":        {with(func(c *config.Members) { c.URL = "https://{host}:1" }), local, "refused"},
		"it sends us elsewhere": {with(func(c *config.Members) { c.URL = "http://{host}:" + portOf(moved) }), local, "307"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ask(t.Context(), c.config, []patroni.Member{c.member})[0]
			switch {
			case c.wrong == "" && (got.err != nil || got.report.Member != "m2"):
				t.Errorf("%+v", got)
			case c.wrong != "" && (got.err == nil || !strings.Contains(got.err.Error(), c.wrong) || strings.Contains(got.err.Error(),
				token)):
				t.Errorf("%v, want %q", got.err, c.wrong)
			}
		})
	}
	if elsewhere != nil {
		t.Errorf("who was not meant was asked: %v", elsewhere)
	}
	if diff := cmp.Diff([]answer{}, ask(t.Context(), good, nil), cmp.AllowUnexported(answer{})); diff != "" {
		t.Error(diff)
	}
}
