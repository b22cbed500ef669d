package httpapi

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/pgb"
)

// keepers are the processes of a program that keep a lease.
func keepers(t *testing.T, program string) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || !bytes.HasPrefix(text, []byte(program+"\x00")) || !bytes.Contains(text, []byte("\x00_keep")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestLeaseTakenUp: the container of serve ends with the keeper of a pause by hand, as all its processes do. The next serve takes the lease
// up: a real pooler is resumed when it is over.
func TestLeaseTakenUp(t *testing.T) {
	single.Need(t)
	program := buildProgram(t)
	pg, err := single.StartPostgres(t.Context(), single.SuiteTrixie, single.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pg.Close)
	pooler, err := single.StartPgBouncer(t.Context(), single.SuiteTrixie, single.PgBouncerOptions{Backend: pg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pooler.Close)
	dir := t.TempDir()
	writeText(t, dir+"/tokens", "operator operate "+operateToken+"\n")
	writeText(t, dir+"/admin", single.Password+"\n")
	writeText(t, dir+"/pgbaton.yaml", fmt.Sprintf(`patroni: {url: "http://127.0.0.1:1"}
postgres: %q
poolers:
  - dsn: postgres://%s@%s:%d/pgbouncer?sslmode=disable
    password_file: admin
serve: {tokens_file: tokens, grace: 2s}
state_dir: %s/state
`, pg.SocketDSN("postgres", "postgres"), single.AdminUser, pooler.Addr, pooler.Port, dir))
	c := serveChild(t, program, dir+"/pgbaton.yaml", filepath.Join(dir, "log"))
	pause := c.expect(c.do("POST", "/v1/pgbouncer/pause", `{"lease":"6s"}`), 202, "").operation(t)
	pause = c.until(pause.ID, "succeeded")
	first := keepers(t, program)
	if len(first) != 1 {
		t.Fatalf("keepers: %v", first)
	}
	if err := syscall.Kill(first[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.kill(syscall.SIGKILL)
	console := func() pgb.State {
		t.Helper()
		poolers, errs := pgb.Resolve(
			t.Context(),
			[]pgb.Spec{{DSN: fmt.Sprintf("postgres://%s@%s:%d/pgbouncer?sslmode=disable", single.AdminUser,
				pooler.Addr, pooler.Port),
				Password: single.Password}},
			func(_ context.Context, host string) ([]string, error) { return []string{host}, nil },
		)
		if len(errs) > 0 || len(poolers) != 1 {
			t.Fatal(errs)
		}
		defer poolers[0].Close()
		s, err := poolers[0].State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if !console().Paused {
		t.Fatal("it is not paused, so there is nothing to take up")
	}

	serveChild(t, program, dir+"/pgbaton.yaml", filepath.Join(dir, "log"))
	eventually(t, "a new keeper", func() bool { return len(keepers(t, program)) == 1 })
	eventually(t, "the pooler is resumed", func() bool { return !console().Paused })
	if late := time.Since(pause.Result.Until); late < -time.Second || late > 5*time.Second {
		t.Errorf("%s after the end of the lease", late)
	}
	if log, err := os.ReadFile(dir + "/log"); err != nil || !strings.Contains(string(log), "lease") {
		t.Errorf("%v %s", err, log)
	}
}
