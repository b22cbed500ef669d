package hostile

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// address is the variable that makes a test binary the client of a case.
const address = "PGBATON_TEST_HOSTILE"

const (
	limit   = 400 * time.Millisecond // of each operation
	late    = 2 * time.Second        // that it may end after its limit on a machine that is busy: what hangs would take 5 s and more
	maxRSS  = 64 << 10               // KiB
	maxLine = 1200                   // bytes of an error: one text of the peer's, and where it came from
)

// Said is what one operation of the client came to.
type Said struct {
	Text string // its error and whatever else of it people see
	Took time.Duration
}

// Client is for TestMain: in a process that [Try] started it runs the operations, each with its own limit, reports, and returns true.
func Client(operations ...func(host string, port int, limit time.Duration) string) bool {
	at := os.Getenv(address)
	if at == "" {
		return false
	}
	to, err := net.ResolveTCPAddr("tcp", at)
	if err != nil {
		fmt.Println(err)
		return true
	}
	var said []Said
	for _, do := range operations {
		begun := time.Now()
		text := do(to.IP.String(), to.Port, limit)
		said = append(said, Said{text, time.Since(begun)})
	}
	_ = json.NewEncoder(os.Stdout).Encode(report{said, memory()})
	return true
}

type report struct {
	Said   []Said
	Memory int // the most that it had in memory, in KiB
}

// memory is VmHWM (proc_pid_status(5)). What wait4 tells is the parent's, from before the child ran its own program.
func memory() int {
	status, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var kib int
	_, _ = fmt.Sscan(rest, &kib)
	return kib
}

// Try runs the test binary as a client of every case of PostgreSQL's protocol and checks what all have in common: the time that each
// operation takes, the memory of the process, and that what people see is short, prints and has no password in it. With the race detector
// it is one case in five.
func Try(t *testing.T) {
	for i, c := range Cases() {
		if i%oneIn != 0 {
			continue
		}
		try(t, c.Name, func(t *testing.T) net.Addr { return c.Serve(t) })
	}
}

// TryHTTP is [Try] with the cases of a server that speaks HTTP.
func TryHTTP(t *testing.T) {
	for i, c := range httpCases() {
		if i%oneIn != 0 {
			continue
		}
		try(t, c.name, c.serve)
	}
}

func try(t *testing.T, name string, serve func(*testing.T) net.Addr) {
	t.Run(name, func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		// Under -race every process would sleep a second before it ends.
		cmd.Env = append(os.Environ(), address+"="+serve(t).String(), "GORACE=atexit_sleep_ms=0")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		var got report
		if err := errors.Join(err, json.Unmarshal(out, &got)); err != nil {
			t.Fatalf("%v: %.2000s", err, stderr.String())
		}
		if len(got.Said) == 0 || got.Memory == 0 {
			t.Fatalf("nothing was tried, or not measured: %+v", got)
		}
		for i, s := range got.Said {
			if s.Took > limit+late {
				t.Errorf("operation %d took %v", i, s.Took)
			}
			for line := range strings.Lines(s.Text) {
				if line = strings.TrimSuffix(line, "\n"); len(line) > maxLine {
					t.Errorf("operation %d: %d bytes: %.100s…", i, len(line), line)
				}
				bad := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError })
				if bad >= 0 || strings.Contains(line, Password) || strings.Contains(line, login) {
					t.Errorf("operation %d: %.200q", i, line)
				}
			}
		}
		if got.Memory > maxRSS*memoryFactor {
			t.Errorf("%d KiB of memory", got.Memory)
		}
		t.Logf("%d KiB, %.500v", got.Memory, got.Said)
	})
}
