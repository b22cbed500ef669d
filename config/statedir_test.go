package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whoever owns a directory above the state directory can put another in its place.
func TestStateDirBelowAnotherUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: directories of another user")
	}
	dir := t.TempDir()
	theirs, ours := filepath.Join(dir, "theirs"), filepath.Join(dir, "ours")
	for _, d := range []string{theirs, theirs + "/below", ours} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(theirs, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(ours, theirs+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{theirs + "/state", theirs + "/below/state", theirs + "/link/state"} {
		if err := openStateDir(state, false); err == nil || !strings.Contains(err.Error(), "belongs to uid 12345") {
			t.Errorf("%s: %v", state, err)
		}
	}
	if err := os.Symlink(ours, dir+"/own link"); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{ours + "/state", dir + "/own link/state"} {
		if err := openStateDir(state, false); err != nil {
			t.Errorf("%s: %v", state, err)
		}
	}
}

// A command that only looks makes no directory: one that root makes by it would be in the way of Patroni's user.
func TestStateDirIsNotMadeByALook(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/pgbaton.yaml", "state_dir: "+dir+"/state")
	c, err := Load(Options{File: dir + "/pgbaton.yaml", LookOnly: true, LookupEnv: environment()})
	if err != nil || c.StateDir != "" {
		t.Errorf("%q, %v", c.StateDir, err)
	}
	if _, err := os.Stat(dir + "/state"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was made: %v", err)
	}
	if c, err = Load(Options{File: dir + "/pgbaton.yaml", LookupEnv: environment()}); err != nil || c.StateDir != dir+"/state" {
		t.Errorf("%q, %v", c.StateDir, err)
	}
	c, err = Load(Options{File: dir + "/pgbaton.yaml", LookOnly: true, LookupEnv: environment()})
	if err != nil || c.StateDir != dir+"/state" {
		t.Errorf("one that is there: %q, %v", c.StateDir, err)
	}
	// By default as well; the fallback's place is anybody's.
	tmp := t.TempDir()
	options := Options{systemFile: "/none", Executable: tmp + "/x", Argv0: "x", LookOnly: true, LookupEnv: environment("TMPDIR=" + tmp)}
	if c, err = Load(options); err != nil || c.StateDir != "" && c.StateDir != defaultStateDir {
		t.Errorf("%q, %v", c.StateDir, err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("made: %v, %v", left, err)
	}
}

// Somebody else has made the fallback's directory: that is told, and the rest of the configuration can be used.
func TestStateDirOfSomebodyElse(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: directories of another user")
	}
	if err := openStateDir(defaultStateDir, true); err == nil {
		t.Skip(defaultStateDir + " can be used here")
	}
	tmp := t.TempDir()
	theirs := fallbackStateDir(tmp)
	if err := errors.Join(os.Mkdir(theirs, 0o777), os.Chown(theirs, 12345, 12345)); err != nil {
		t.Fatal(err)
	}
	options := Options{systemFile: "/none", Executable: tmp + "/x", Argv0: "x", LookOnly: true, LookupEnv: environment("TMPDIR=" + tmp)}
	c, err := Load(options)
	if !IsStateDir(err) || c.StateDir != "" || !strings.Contains(err.Error(), "set state_dir") {
		t.Errorf("%q, %v", c.StateDir, err)
	}
	options.Set = []Setting{{Key: "pause.budget", Value: "15", Source: "--pause-budget"}}
	if _, err := Load(options); IsStateDir(err) || !errors.Is(err, ErrStateDir) {
		t.Errorf("something else is wrong as well: %v", err)
	}
}
