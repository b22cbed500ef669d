package maintenance

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/plan"
)

// serves has servers at several addresses of this machine, on one port, tell labels; "" for one that is not there.
func serves(t *testing.T, labels map[string]string) (port int) {
	t.Helper()
	for host, revision := range labels {
		if revision == "" {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", host, port))
		if err != nil {
			t.Fatal(err)
		}
		port = l.Addr().(*net.TCPAddr).Port
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(api.Status{Labels: map[string]string{"revision": revision}})
		})}
		go func() { _ = server.Serve(l) }()
		t.Cleanup(func() { _ = server.Close() })
	}
	return port
}

func TestLookAtLabels(t *testing.T) {
	port := serves(t, map[string]string{"127.0.9.2": "old", "127.0.9.3": "new", "127.0.9.4": ""})
	for _, x := range []struct{ name, own, prefer, want string }{
		{"nobody asked for", "revision=\"old\"\n", "", ""},
		{"another than the primary's", "app=\"db\"\nrevision=\"old\"\n", "revision", "m3"},
		{"another than the primary's, and that is the new one", "revision=\"new\"\n", "revision", "m2"},
		{"a value", "revision=\"new\"\n", "revision=new", "m1 m3"},
		{"a value that nobody has", "revision=\"new\"\n", "revision=newer", ""},
		{"a label that nobody has", "revision=\"new\"\n", "zone", ""},
		{"a file that is none", "revision: new\n", "revision", ""},
		{"no file", "", "revision=new", "m3"},
	} {
		t.Run(x.name, func(t *testing.T) {
			m := &member.Member{Config: &config.Config{}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
			m.Config.Members.URL = fmt.Sprintf("http://{host}:%d", port)
			if x.own != "" {
				m.Config.Serve.LabelsFile = filepath.Join(t.TempDir(), "labels")
				if err := os.WriteFile(m.Config.Serve.LabelsFile, []byte(x.own), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			s := &scene{self: "m1", members: map[string]*seen{}}
			for i := 1; i <= 4; i++ {
				name, role := fmt.Sprintf("m%d", i), "replica"
				if i == 1 {
					role = "leader"
				}
				s.members[name] = &seen{Member: patroni.Member{Name: name, Host: fmt.Sprintf("127.0.9.%d", i)}}
				s.Members = append(s.Members, plan.Member{Name: name, Role: role})
			}
			s.lookAtLabels(t.Context(), m, Request{Prefer: x.prefer})
			var preferred []string
			for _, p := range s.Members {
				if p.Preferred {
					preferred = append(preferred, p.Name)
				}
			}
			if got := strings.Join(preferred, " "); got != x.want {
				t.Errorf("preferred: %q, want %q", got, x.want)
			}
		})
	}
}
