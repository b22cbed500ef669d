package patroni_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgbaton/pgbaton/patroni"
)

// TestEnvironBelow is what TestEnviron starts below a program that calls itself patroni.
func TestEnvironBelow(t *testing.T) {
	out := os.Getenv("ENVIRON_OUT")
	if out == "" {
		t.Skip("for TestEnviron")
	}
	var lines []string
	for name, v := range patroni.Environ("/nonexistent") {
		lines = append(lines, name+"="+v)
	}
	_, own := os.LookupEnv("PATRONI_SUPERUSER_PASSWORD")
	if own {
		lines = append(lines, "it is still in our own")
	}
	if err := os.WriteFile(out, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A hook sees Patroni's variables, which Patroni has taken out of its environment, through shells and only from Patroni.
func TestEnviron(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	out, name := filepath.Join(dir, "out"), filepath.Join(dir, "patroni")
	if err := os.Symlink(bash, name); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{name, bash} {
		cmd := exec.Command(
			program,
			"-c",
			`unset PATRONI_SUPERUSER_PASSWORD; sh -c '"$0" -test.run "^TestEnvironBelow$"; true' "$0"; true`,
			os.Args[0],
		)
		cmd.Env = append(os.Environ(), "ENVIRON_OUT="+out, "PATRONI_SUPERUSER_PASSWORD=a=b\nc", "XPATRONI_NAME=no")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		got, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		want := "PATRONI_SUPERUSER_PASSWORD=a=b\nc"
		if program == bash {
			want = ""
		}
		if d := cmp.Diff(want, string(got)); d != "" {
			t.Error(program, d)
		}
	}
}
