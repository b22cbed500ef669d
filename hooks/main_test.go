package hooks

import (
	"context"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pause"
)

func TestMain(m *testing.M) {
	membertest.Main(m, map[string]membertest.Command{
		member.KeepCommand: func(ctx context.Context, m *member.Member, in io.Reader, out io.Writer) int {
			return pause.Keep(ctx, m, in, out).Code
		},
		member.WorkCommand: func(ctx context.Context, m *member.Member, _ io.Reader, out io.Writer) int {
			args := os.Args[slices.Index(os.Args, member.WorkCommand)+1:]
			var ev Event
			if text, ok := strings.CutPrefix(args[0], "--stopped="); ok {
				var err error
				if ev.Stopped, err = time.Parse(stoppedFormat, text); err != nil {
					return member.Invalid
				}
				args = args[1:]
			}
			ev.Action, ev.Role = args[0], args[1]
			return Work(ctx, m, ev, out).Code
		},
	})
}
