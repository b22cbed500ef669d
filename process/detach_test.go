package process_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/process"
)

// filesCommand makes this binary a detached process that says that it is ready and lives until its standard input ends.
const filesCommand = "_files"

func TestMain(m *testing.M) {
	if code, ok := process.Detach(os.Args); ok {
		os.Exit(code)
	}
	if slices.Contains(os.Args[1:], filesCommand) {
		if process.SayReady(os.Stdout) == nil {
			_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A process that outlives its caller has nothing of what the caller has open: `flock 9` of a script around us would last as long as it.
func TestDetachedHasNoFilesOfItsCaller(t *testing.T) {
	for name, start := range map[string]func([]string, bool, string, ...string) (*process.Detached, error){
		"detached": process.StartDetached, "own": process.StartOwn,
	} {
		t.Run(name, func(t *testing.T) { hasNoFilesOfItsCaller(t, start) })
	}
}

func hasNoFilesOfItsCaller(t *testing.T, start func([]string, bool, string, ...string) (*process.Detached, error)) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(t.TempDir(), "lock")
	fd, err := unix.Open(lock, unix.O_CREAT|unix.O_RDWR, 0o600) // and not O_CLOEXEC
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	d, err := start([]string{self}, false, "", filesCommand)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		fmt.Fprintln(d.Stdin)
		_ = d.Stdin.Close()
	}()
	dir := fmt.Sprintf("/proc/%d/fd", d.PID)
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		to, err := os.Readlink(filepath.Join(dir, f.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		if to == lock {
			t.Errorf("descriptor %s is %s", f.Name(), to)
		}
		if n, _ := strconv.Atoi(f.Name()); n <= 2 {
			continue
		}
		t.Logf("descriptor %s is %s", f.Name(), to)
	}
}
