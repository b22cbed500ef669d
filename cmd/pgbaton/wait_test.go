package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestReloadWaitCosts: a version in the DCS is asked for once a second, and that costs no more than 1 % of a core. Versions in files are
// measured in configversion.
func TestReloadWaitCosts(t *testing.T) {
	asked := 0
	patroni := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		_, _ = io.WriteString(w, `{"ttl": 30, "loop_wait": 10, "postgresql": {"parameters": {"pgbaton.config_version": "41"}}}`)
	}))
	defer patroni.Close()
	// By this name the test's binary is the program.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "pgbaton")
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	measure := func(timeout string) (cpu, wall time.Duration) {
		cmd := exec.Command(program, "reload", "postgres", "--config-version", "42", "--timeout", timeout, "--log-level", "error")
		cmd.Env = append(
			os.Environ(),
			"GORACE=atexit_sleep_ms=0",
			"PGBATON_PATRONI_URL="+patroni.URL,
			"PGBATON_POSTGRES=host="+t.TempDir()+" user=postgres",
			"PGBATON_STATE_DIR="+filepath.Join(t.TempDir(), "state"),
			"PGBATON_VERSIONS_POSTGRES_SETTING=pgbaton.config_version",
		)
		start := time.Now()
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 1 {
			t.Fatalf("%v: %s", err, out)
		}
		return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), time.Since(start)
	}
	// What it costs to start and to end is not the wait's.
	ground, short := measure("100ms")
	cpu, long := measure("10s")
	share := float64(cpu-ground) / float64(long-short)
	t.Logf("%.2f %% of a core (%s in %s), asked %d times", 100*share, cpu-ground, long-short, asked)
	if share > 0.01 {
		t.Errorf("waiting costs %.2f %% of a core", 100*share)
	}
	if asked < 8 {
		t.Errorf("asked %d times in %s", asked, long)
	}
}
