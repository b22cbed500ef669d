package configversion

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// waiterEnv makes the test's binary a process that does nothing but wait: {"Path", "Line", "For"} as JSON.
const waiterEnv = "PGBATON_TEST_WAITER"

type waiter struct {
	Path string
	Line bool
	For  time.Duration
}

func TestMain(m *testing.M) {
	if text := os.Getenv(waiterEnv); text != "" {
		os.Exit(beWaiter(text))
	}
	goleak.VerifyTestMain(m)
}

// beWaiter waits for a version that never comes and prints the processor time that this took, in nanoseconds.
func beWaiter(text string) int {
	var w waiter
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		return 2
	}
	var src Source = File{w.Path}
	if w.Line {
		src = Line{w.Path}
	}
	before := cpuTime()
	ctx, cancel := context.WithTimeout(context.Background(), w.For)
	defer cancel()
	_, err := Wait(ctx, src, 1000, nil)
	late, ok := errors.AsType[*TimeoutError](err)
	if !ok || !late.Seen || late.Last != 41 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(int64(cpuTime() - before))
	return 0
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
