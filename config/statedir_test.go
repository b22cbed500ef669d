package config

import (
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
		if err := openStateDir(state); err == nil || !strings.Contains(err.Error(), "belongs to uid 12345") {
			t.Errorf("%s: %v", state, err)
		}
	}
	if err := os.Symlink(ours, dir+"/own link"); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{ours + "/state", dir + "/own link/state"} {
		if err := openStateDir(state); err != nil {
			t.Errorf("%s: %v", state, err)
		}
	}
}
