package main

import (
	"errors"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	// The test binary chooses by its name what it is; the links are names, too.
	testscript.Main(m, map[string]func(){"pgbaton": main, "before_stop": main, "before-stop": main,
		"on_role_change": main, "on-role-change": main, "reload": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                "testdata",
		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			// Nothing listens at these: no script meets what runs on the developer's machine.
			env.Setenv("PGBATON_PATRONI_URL", "http://127.0.0.1:1")
			env.Setenv("PGBATON_POSTGRES", "host="+env.WorkDir+" user=postgres")
			env.Setenv("PGBATON_STATE_DIR", env.WorkDir+"/state")
			// Under -race every process would sleep a second before it ends.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits N COMMAND... runs a command that must end with exactly this code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	if err != nil {
		ts.Fatalf("usage: exits N COMMAND...")
	}
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func TestLinkArgs(t *testing.T) {
	for _, test := range []struct{ argv, want []string }{
		{[]string{"/callbacks/before_stop"}, []string{"before_stop"}},
		{[]string{"before-stop", "--dry-run"}, []string{"before_stop", "--dry-run"}},
		{[]string{"/c/on-role-change", "on_start", "primary", "demo"}, []string{"on_role_change", "on_start", "primary", "demo"}},
		{[]string{"/c/before_stop", "--log-level=info", "_keep"}, []string{"--log-level=info", "_keep"}},
		{[]string{"pgbaton", "status"}, []string{"status"}},
		{nil, nil},
	} {
		got := linkArgs(test.argv)
		if len(got) != len(test.want) {
			t.Fatalf("%q: %q", test.argv, got)
		}
		for i := range got {
			if got[i] != test.want[i] {
				t.Errorf("%q: %q", test.argv, got)
			}
		}
	}
}
