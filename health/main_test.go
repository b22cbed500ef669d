package health

import (
	"context"
	"io"
	"testing"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/process"
)

func TestMain(m *testing.M) {
	membertest.Main(m, map[string]membertest.Command{
		member.OrphanCommand: func(_ context.Context, _ *member.Member, in io.Reader, out io.Writer) int {
			if process.Orphan(in, out) != nil {
				return member.Failed
			}
			return member.Done
		},
	})
}
