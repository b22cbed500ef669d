package hooks

import (
	"context"
	"io"
	"testing"
)

func TestMain(m *testing.M) {
	runMain(m, map[string]command{"_keep": func(ctx context.Context, rt *Runtime, in io.Reader, out io.Writer) int {
		return Keep(ctx, rt, in, out).Code
	}})
}
