package scripts_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRelease: a release is made of a commit that CHANGELOG.md knows, and of nothing else. The repository is a real one; what make packages
// would build there takes minutes, and is packaging's own test: here it leaves a file and its sum.
func TestRelease(t *testing.T) {
	dir := t.TempDir()
	run := func(name string, args ...string) (string, error) {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b",
			"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(name string, args ...string) {
		t.Helper()
		if out, err := run(name, args...); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script, err := os.ReadFile("release.sh")
	if err != nil {
		t.Fatal(err)
	}
	write("scripts/release.sh", string(script))
	write("CHANGELOG.md", "# Changelog\n\n## v0.2.0\n\n- all of it\n")
	write(".gitignore", "/dist/\n")
	write("Makefile", "packages:\n\tmkdir -p dist/packages\n\techo $(VERSION) >dist/packages/made\n\tcd dist/packages && sha256sum made >SHA256SUMS\n")
	must("git", "init", "-q")
	must("git", "add", "-A")
	must("git", "commit", "-qm", "first")

	refused := func(version, want string) {
		t.Helper()
		out, err := run("scripts/release.sh", version)
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%q: %v, %q does not say %q", version, err, out, want)
		}
		if _, err := os.Stat(filepath.Join(dir, "dist/packages/made")); err == nil {
			t.Errorf("%q: packages were made", version)
		}
	}
	for _, version := range []string{"", "0.2.0", "v0.2", "v0.2.0 ", "v00.2.0", "v0.2.0;id", "devel"} {
		refused(version, "is not a version")
	}
	refused("v0.3.0", "CHANGELOG.md")
	refused("v0.2", "is not a version")
	write("CHANGELOG.md", "# Changelog\n\n## v0.2.0\n\n- and more\n")
	refused("v0.2.0", "not committed")
	must("git", "checkout", "-q", "CHANGELOG.md")
	write("left.txt", "over")
	refused("v0.2.0", "left.txt")
	must("rm", "left.txt")
	must("git", "tag", "v0.2.0")
	write("more.txt", "of it")
	must("git", "add", "-A")
	must("git", "commit", "-qm", "second")
	refused("v0.2.0", "another commit")

	must("git", "checkout", "-q", "v0.2.0")
	if out, err := run("scripts/release.sh", "v0.2.0"); err != nil || !strings.Contains(out, "release v0.2.0 of ") || strings.Contains(out, "git tag") {
		t.Errorf("%v\n%s", err, out)
	}
	made, err := os.ReadFile(filepath.Join(dir, "dist/packages/made"))
	if err != nil || string(made) != "v0.2.0\n" {
		t.Errorf("%v %q", err, made)
	}
	must("git", "tag", "-d", "v0.2.0")
	if out, err := run("scripts/release.sh", "v0.2.0"); err != nil || !strings.Contains(out, "git tag -s v0.2.0") {
		t.Errorf("%v\n%s", err, out)
	}
}
