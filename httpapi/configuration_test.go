package httpapi

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
)

// TestConfigurationThatBreaks: a hook reads the configuration when it is needed. That it cannot be used is in the log, the status and the
// metrics before.
func TestConfigurationThatBreaks(t *testing.T) {
	dir := t.TempDir()
	good := "patroni: {url: \"http://127.0.0.1:1\"}\nstate_dir: " + dir + "/state\nserve: {tokens_file: tokens}\n"
	writeText(t, dir+"/tokens", "operator operate "+operateToken+"\n")
	writeText(t, dir+"/pgbaton.yaml", good)
	c := serveChild(t, buildProgram(t), dir+"/pgbaton.yaml", filepath.Join(dir, "log"))
	valid := func() (condition api.Condition) {
		for _, x := range statusOf(t, c.service).Conditions {
			if x.Type == api.ConditionValid {
				condition = x
			}
		}
		return condition
	}
	metric := func() string { return value(string(c.do("GET", "/metrics", "").body), "pgbaton_configuration_valid") }
	if got := valid(); got.Status != "True" || metric() != "1" {
		t.Fatalf("%+v %s", got, metric())
	}
	writeText(t, dir+"/pgbaton.yaml", good+"pause: {bugdet: 1s}\n")
	eventually(t, "the status says so", func() bool { return valid().Status == "False" })
	if got := valid(); !strings.Contains(got.Message, `unknown key "pause.bugdet"`) || !strings.Contains(got.Message,
		"every hook exits with code 2") {
		t.Errorf("%+v", got)
	}
	eventually(t, "the metric says so", func() bool { return metric() == "0" })
	logged := func(text string) func() bool {
		return func() bool {
			log, err := os.ReadFile(c.log)
			return err == nil && strings.Contains(string(log), text)
		}
	}
	eventually(
		t,
		"the log says so",
		logged(`level=ERROR msg="the configuration is no longer usable: every hook exits with code 2 and pauses nothing"`),
	)
	writeText(t, dir+"/pgbaton.yaml", good)
	eventually(t, "all is well", func() bool { return valid().Status == "True" && metric() == "1" })
	eventually(t, "the log says so", logged("the configuration is usable again"))
}

func statusOf(t *testing.T, a *service) (s api.StatusAnswer) {
	t.Helper()
	a.expect(a.do("GET", "/v1/status", ""), 200, "").into(t, &s)
	return s
}

// TestOperationOfAnotherMember: behind one Service a Location may lead to the next member, which says whose server it is.
func TestOperationOfAnotherMember(t *testing.T) {
	first := start(t, &fake{}, func(_ *config.Config, o *Options) { o.Member.Config.Patroni.Name = "m1" })
	next := start(t, &fake{}, func(_ *config.Config, o *Options) { o.Member.Config.Patroni.Name = "m2" })
	accepted := first.expect(first.do("POST", "/v1/pgbouncer/pause", ""), 202, "")
	if o := accepted.operation(t); o.Member != "m1" {
		t.Errorf("%+v", o)
	}
	at := accepted.header.Get("Location")
	for _, path := range []string{at, at + "/events"} {
		p := next.expect(next.do("GET", path, ""), 404, "operation-not-found").problem(t)
		if !strings.HasPrefix(
			p.Detail,
			"this is the server of member m2, which has no such operation; only the server of the member that accepted an operation knows it",
		) {
			t.Errorf("%s", p.Detail)
		}
	}
	if o := first.expect(first.do("GET", at, ""), 200, "").operation(t); o.Member != "m1" {
		t.Errorf("%+v", o)
	}
}
