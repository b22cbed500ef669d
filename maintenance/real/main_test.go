// Package real_test runs planned maintenance on real clusters.
package real_test

import (
	"context"
	"io"
	"testing"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pause"
)

func TestMain(m *testing.M) {
	membertest.Main(m, map[string]membertest.Command{
		member.KeepCommand: func(ctx context.Context, m *member.Member, in io.Reader, out io.Writer) int {
			return pause.Keep(ctx, m, in, out).Code
		},
	})
}
