// Package packaging_test looks at what make packages has put into dist/packages: it installs it, unpacks it and starts it. Needs root.
package packaging_test

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const dist = "../dist/packages"

// artifact is the one file of dist/packages with such a name.
func artifact(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dist, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v, %d files: run make packages", pattern, err, len(found))
	}
	path, err := filepath.Abs(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

// contents are the files of a package: its path, and behind it the mode or where a link leads.
func contents(commands []string, zsh string) []string {
	want := []string{
		"/usr/bin/pgbaton 755",
		"/usr/lib/pgbaton/before_stop -> ../../bin/pgbaton",
		"/usr/lib/pgbaton/on_role_change -> ../../bin/pgbaton",
		"/usr/lib/pgbaton/reload -> ../../bin/pgbaton",
		"/etc/pgbaton/pgbaton.yaml 644",
		"/usr/lib/systemd/system/pgbaton.service 644",
		"/usr/lib/systemd/system/patroni.service.d/pgbaton.conf 644",
		"/usr/lib/tmpfiles.d/pgbaton.conf 644",
		"/usr/share/bash-completion/completions/pgbaton 644",
		"/usr/share/fish/vendor_completions.d/pgbaton.fish 644",
		zsh + "/_pgbaton 644",
		"/usr/share/man/man1/pgbaton.1.gz 644",
		"/usr/share/pgbaton/dashboard.json 644",
		"/usr/share/pgbaton/alerts.yaml 644",
	}
	for _, command := range commands {
		want = append(want, "/usr/share/man/man1/pgbaton-"+command+".1.gz 644")
	}
	return want
}

// commands are the program's, from its own help.
func commands(t *testing.T) []string {
	t.Helper()
	_, list, _ := strings.Cut(output(t, artifact(t, "pgbaton_*_linux_amd64"), "--help"), "\nCommands:\n")
	var found []string
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z_]+) `).FindAllStringSubmatch(list, -1) {
		found = append(found, m[1])
	}
	if len(found) < 10 {
		t.Fatalf("only %d commands: %q", len(found), list)
	}
	return found
}

// filesBelow are all files and links below a folder, as contents has them.
func filesBelow(t *testing.T, root string) []string {
	t.Helper()
	out := output(t, "find", root, "-mindepth", "1", "(", "-type", "l", "-printf", "/%P -> %l\\n", "-o", "-type", "f", "-printf", "/%P %m\\n", ")")
	return strings.Split(strings.TrimSpace(out), "\n")
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		t.Errorf("%s holds\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestContents(t *testing.T) {
	all := commands(t)
	for deb, rpm := range map[string]string{"amd64": "x86_64", "arm64": "aarch64"} {
		dir := t.TempDir()
		output(t, "dpkg-deb", "-x", artifact(t, "*_"+deb+".deb"), dir)
		same(t, "the deb of "+deb, filesBelow(t, dir), append(contents(all, "/usr/share/zsh/vendor-completions"),
			"/usr/share/doc/pgbaton/changelog.Debian.gz 644", "/usr/share/doc/pgbaton/copyright 644", "/usr/share/lintian/overrides/pgbaton 644"))

		dir = t.TempDir()
		file := artifact(t, "*."+rpm+".rpm")
		output(t, "sh", "-c", `rpm2cpio "$1" | (cd "$2" && cpio -idm --quiet --no-absolute-filenames)`, "sh", file, dir)
		same(t, "the rpm of "+rpm, filesBelow(t, dir), append(contents(all, "/usr/share/zsh/site-functions"),
			"/usr/share/licenses/pgbaton/LICENSE 644"))
		if got := strings.TrimSpace(output(t, "rpm", "-qp", "--configfiles", file)); got != "/etc/pgbaton/pgbaton.yaml" {
			t.Errorf("%s: configuration files are %q", file, got)
		}
		if got := output(t, "rpm", "-qp", "--queryformat", "%{NAME} %{ARCH} %{LICENSE}", file); got != "pgbaton "+rpm+" Apache-2.0" {
			t.Errorf("%s is %q", file, got)
		}
		if got := output(t, "rpm", "-qp", "--scripts", file); !strings.Contains(got, "try-restart pgbaton.service") {
			t.Errorf("%s: its scripts are %q", file, got)
		}
		if got := output(t, "rpm", "-K", "--nosignature", file); !strings.Contains(got, "digests OK") {
			t.Error(got)
		}
	}
}

func TestLintian(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		out, err := exec.Command("lintian", "--allow-root", "--fail-on", "error", artifact(t, "*_"+arch+".deb")).CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		t.Logf("%s", out)
	}
}

// onLabRoot runs a script in a copy-on-write view of a suite's root, in which deb is /pgbaton.deb.
func onLabRoot(t *testing.T, suite, script string) string {
	t.Helper()
	lab := os.Getenv("PGBATON_LAB_DIR")
	if lab == "" {
		lab = "/var/lib/pgbaton-lab"
	}
	if _, err := os.Stat(filepath.Join(lab, suite, "usr")); err != nil {
		t.Fatalf("%v: run make roots", err)
	}
	return output(t, "unshare", "--mount", "--propagation", "private", "sh", "-c", `set -e
		mount -t tmpfs tmpfs "$2"
		mkdir "$2/up" "$2/work" "$2/root"
		mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/up,workdir=$2/work" "$2/root"
		mount -t proc proc "$2/root/proc"
		cp "$3" "$2/root/pgbaton.deb"
		exec chroot "$2/root" sh -c "$4"`, "sh", filepath.Join(lab, suite), t.TempDir(), artifact(t, "*_amd64.deb"), script)
}

// TestInstallAndPurge: dpkg installs the package on both suites, what is in it works, and nothing is left when it is purged.
func TestInstallAndPurge(t *testing.T) {
	for _, suite := range []string{"trixie", "sid"} {
		t.Run(suite, func(t *testing.T) {
			out := onLabRoot(t, suite, `set -e
				find / -xdev -name '*pgbaton*' | sort >/tmp/before
				dpkg -i /pgbaton.deb >/dev/null
				dpkg -V pgbaton
				pgbaton version
				echo "conffiles: $(dpkg-query -W -f '${Conffiles}' pgbaton)"
				runuser -u postgres -- /usr/lib/pgbaton/before_stop --dry-run 2>&1 || echo "exit code $?"
				echo "# mine" >>/etc/pgbaton/pgbaton.yaml
				dpkg -i /pgbaton.deb >/dev/null
				grep '# mine' /etc/pgbaton/pgbaton.yaml
				dpkg -r pgbaton >/dev/null
				test -e /etc/pgbaton/pgbaton.yaml
				dpkg -P pgbaton >/dev/null 2>&1
				find / -xdev -name '*pgbaton*' | sort | diff /tmp/before -
				echo purged`)
			for _, want := range []string{"pgbaton ", "conffiles:  /etc/pgbaton/pgbaton.yaml ", "# mine", "purged"} {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			// The link is the hook, and it has read the package's configuration file: a server that is not there is not a mistake in it.
			if strings.Contains(out, "exit code 2") || !strings.Contains(out, "before_stop") {
				t.Errorf("before_stop --dry-run:\n%s", out)
			}
		})
	}
}

func TestChecksumsAndModules(t *testing.T) {
	cmd := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	cmd.Dir = dist
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	sums, err := os.ReadFile(filepath.Join(dist, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dist)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() != "SHA256SUMS" && !strings.Contains(string(sums), "  "+entry.Name()+"\n") {
			t.Errorf("no checksum of %s", entry.Name())
		}
	}
	for _, arch := range []string{"amd64", "arm64"} {
		info, err := buildinfo.ReadFile(artifact(t, "pgbaton_*_linux_"+arch))
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(artifact(t, "pgbaton_*_linux_"+arch+".cdx.json"))
		if err != nil {
			t.Fatal(err)
		}
		var list struct {
			BOMFormat  string
			Components []struct{ Name, Version, PURL string }
		}
		if err := json.Unmarshal(text, &list); err != nil || list.BOMFormat != "CycloneDX" {
			t.Fatalf("%v: %q", err, list.BOMFormat)
		}
		if got, want := len(list.Components), len(info.Deps)+1; got != want { // and the standard library
			t.Errorf("%s: %d components, the binary has %d modules", arch, got, want)
		}
		for _, m := range info.Deps {
			if !strings.Contains(string(text), `"pkg:golang/`+m.Path+"@"+m.Version+`"`) {
				t.Errorf("%s: no %s", arch, m.Path)
			}
		}
	}
}
