package maintenance

import (
	"context"
	"io"
	"testing"

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
