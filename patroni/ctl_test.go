package patroni_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/patroni"
)

// fakeCtl puts a script in the place of patronictl, for what the real one (lab_test.go) will not do on demand.
func fakeCtl(t *testing.T, script string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "patronictl"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	return dir
}

func TestCtlReload(t *testing.T) {
	for name, c := range map[string]struct {
		script, want string
		code         int
	}{
		"done":       {`[ "$*" = "-c /etc/p.yml reload --force -- demo m1" ] && echo "Reload request received for member m1 and will be processed within 10 seconds"`, "", 0},
		"no changes": {"echo 'No changes to apply on member m1'", "", 0},
		"silent":     {"exit 0", "patronictl reload: not done", 0},
		"half": {"echo 'Reload request received for member m1'; exit 3",
			"patronictl reload: exit code 3: Reload request received for member m1", 3},
		"secrets": {"echo 'etcd at http://root:pass@h:2379: " + secret + "' >&2; exit 1",
			"patronictl reload: exit code 1: etcd at http://*****@h:2379: *****", 1},
		"table":  {"echo '+ Cluster'; echo '| m1 |'; echo 'Error: no'; exit 1", "patronictl reload: exit code 1: Error: no", 1},
		"long":   {"i=0; while [ $i -lt 3000 ]; do echo 'a line that nobody reads'; i=$((i+1)); done; echo last; exit 1", "", 1},
		"killed": {"kill -9 $$", "patronictl reload: signal: killed", -1},
	} {
		t.Run(name, func(t *testing.T) {
			fakeCtl(t, c.script)
			err := patroni.CtlReload(t.Context(), "/etc/p.yml", "demo", "m1", secret)
			var e *patroni.CtlError
			switch {
			case name == "done" || name == "no changes":
				if err != nil {
					t.Error(err)
				}
			case !errors.As(err, &e) || e.ExitCode != c.code || c.want != "" && err.Error() != c.want:
				t.Errorf("%v, want %s", err, c.want)
			case name == "long" && (len(e.Output) > 400 || !strings.HasSuffix(e.Output, " last")):
				t.Errorf("%d bytes: %s", len(e.Output), e.Output)
			}
		})
	}
	t.Setenv("PATH", t.TempDir())
	if err := patroni.CtlReload(t.Context(), "/etc/p.yml", "demo", "m1"); !errors.Is(err, patroni.ErrNoCtl) {
		t.Error(err)
	}
}

func TestCtlReloadIsKilledWithItsChildren(t *testing.T) {
	dir := fakeCtl(t, `sleep 1000 & echo $! >"$(dirname "$0")/child.new"; mv "$(dirname "$0")/child.new" "$(dirname "$0")/child"; wait`)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- patroni.CtlReload(ctx, "/etc/p.yml", "demo", "m1") }()
	var child int
	eventually(t, "the child", func() error {
		b, err := os.ReadFile(filepath.Join(dir, "child"))
		if err != nil {
			return err
		}
		child, err = strconv.Atoi(strings.TrimSpace(string(b)))
		return err
	})
	start := time.Now()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("%s", took)
	}
	eventually(t, "the child is gone", func() error {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(child) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return nil
		}
		if unix.Kill(child, 0) != nil {
			return nil
		}
		return errors.New("still there")
	})
}
