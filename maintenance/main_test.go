package maintenance

import (
	"context"
	"io"
	"log/slog"
	"os"
	"testing"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pause"
)

func TestMain(m *testing.M) {
	keep := func(ctx context.Context, m *member.Member, in io.Reader, out io.Writer) int {
		return pause.Keep(ctx, m, in, out).Code
	}
	membertest.Main(m, map[string]membertest.Command{member.KeepCommand: keep})
}

// on is pgbaton on a member of the cluster.
func on(t *testing.T, f *membertest.Cluster, name string) *member.Member {
	t.Helper()
	c := &config.Config{StateDir: t.TempDir()}
	c.Patroni.URL, c.Patroni.Name = f.Servers[name].URL, name
	return &member.Member{Config: c, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Self: []string{os.Args[0]}}
}
