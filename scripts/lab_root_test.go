// Package scripts_test tests what root runs of the scripts.
package scripts_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// debootstrap stands in for the real one, which would take minutes and a mirror: it says how it was called and makes nothing.
const debootstrap = `#!/bin/sh
{ echo "$@"; umask; } >"$TEST_CALLED"
exit 1
`

// labRoot runs lab-root.sh for a lab folder and returns what it said, and how debootstrap was called; "" for not at all.
func labRoot(t *testing.T, lab string) (said, called string) {
	t.Helper()
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "debootstrap"), []byte(debootstrap), 0o755); err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(bin, "called")
	cmd := exec.CommandContext(t.Context(), "./lab-root.sh", "trixie")
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "PGBATON_LAB_DIR="+lab, "TEST_CALLED="+record)
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("it has made a root without debootstrap: %s", out)
	}
	content, err := os.ReadFile(record)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(out), string(content)
}

func needRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: others may not make the folder at all")
	}
}

// TestLabRootIsChecked: what root will run is checked against the archive's keys, also by a caller whose umask lets everybody write.
func TestLabRootIsChecked(t *testing.T) {
	needRoot(t)
	lab := filepath.Join(t.TempDir(), "lab")
	defer syscall.Umask(syscall.Umask(0))
	said, called := labRoot(t, lab)
	args, umask, _ := strings.Cut(strings.TrimSpace(called), "\n")
	if !slices.Contains(strings.Fields(args), "--force-check-gpg") || strings.Contains(args, "--no-check-gpg") {
		t.Errorf("debootstrap %q: its keys are not checked\n%s", args, said)
	}
	if umask != "0022" {
		t.Errorf("umask %q", umask)
	}
	info, err := os.Stat(lab)
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v %v", info, err)
	}
}

// TestLabRootForeign: nothing is made where somebody else could put something into it.
func TestLabRootForeign(t *testing.T) {
	needRoot(t)
	const nobody = 65534
	for name, spoil := range map[string]func(lab string) error{
		"folder of another user":       func(lab string) error { return os.Chown(lab, nobody, nobody) },
		"folder that others write to":  func(lab string) error { return os.Chmod(lab, 0o777) },
		"folder that a group writes":   func(lab string) error { return os.Chmod(lab, 0o775) },
		"sticky folder, others create": func(lab string) error { return os.Chmod(lab, 0o777|os.ModeSticky) },
		"parent that others write to":  func(lab string) error { return os.Chmod(filepath.Dir(lab), 0o777) },
		"parent of another user":       func(lab string) error { return os.Chown(filepath.Dir(lab), nobody, nobody) },
		"link to such a folder": func(lab string) error {
			other := filepath.Join(filepath.Dir(filepath.Dir(lab)), "other")
			if err := os.Mkdir(other, 0o755); err != nil {
				return err
			}
			if err := os.Chown(other, nobody, nobody); err != nil {
				return err
			}
			if err := os.Remove(lab); err != nil {
				return err
			}
			return os.Symlink(other, lab)
		},
	} {
		t.Run(name, func(t *testing.T) {
			lab := filepath.Join(t.TempDir(), "parent", "lab")
			if err := os.MkdirAll(lab, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := spoil(lab); err != nil {
				t.Fatal(err)
			}
			said, called := labRoot(t, lab)
			if called != "" || !strings.Contains(said, "others than root can change") {
				t.Errorf("debootstrap %q\n%s", called, said)
			}
			if entries, err := os.ReadDir(lab); err != nil || len(entries) > 0 {
				t.Errorf("%v %v was made", err, entries)
			}
		})
	}
}
