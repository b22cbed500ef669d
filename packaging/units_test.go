package packaging_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnits: systemd itself finds nothing wrong with the package's units, nor with Patroni's and our drop-in, and little that a break-in of
// serve could reach. It looks at an unpacked package: nothing is installed or started.
func TestUnits(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("needs systemd-analyze, of Debian's package systemd")
	}
	root := t.TempDir()
	output(t, "dpkg-deb", "-x", artifact(t, "*_amd64.deb"), root)
	units := filepath.Join(root, "usr/lib/systemd/system")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(units, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"basic.target", "sysinit.target", "shutdown.target", "multi-user.target", "network-online.target"} {
		write(name, "[Unit]\nDescription=one of systemd's own\n")
	}
	write("patroni.service", "[Unit]\nDescription=Patroni\n[Service]\nUser=postgres\nExecStart=/usr/bin/pgbaton version\nKillMode=mixed\n")
	verify := func() string {
		t.Helper()
		out, err := exec.Command("systemd-analyze", "verify", "--root="+root, "--man=no", "pgbaton.service", "patroni.service").CombinedOutput()
		if err != nil {
			t.Errorf("systemd-analyze verify: %v\n%s", err, out)
		}
		return string(out)
	}
	if said := verify(); said != "" {
		t.Errorf("systemd-analyze verify: %s", said)
	}
	// It ends with 0 whatever it finds, so look whether it looks: also at the drop-in.
	drop := filepath.Join("patroni.service.d", "pgbaton.conf")
	text, err := os.ReadFile(filepath.Join(units, drop))
	if err != nil {
		t.Fatal(err)
	}
	write(drop, strings.Replace(string(text), "KillMode=process", "KillMode=perhaps", 1))
	if said := verify(); !strings.Contains(said, drop) || !strings.Contains(said, "perhaps") {
		t.Errorf("a mistake in the drop-in is not found: %s", said)
	}
	write(drop, string(text))
	if out, err := exec.Command("systemd-analyze", "security", "--root="+root, "--offline=true", "--no-pager", "--threshold=25",
		"pgbaton.service").CombinedOutput(); err != nil {
		t.Errorf("exposed more than 2.5 of 10: %v\n%s", err, out)
	} else {
		t.Logf("%s", out[max(0, strings.LastIndex(strings.TrimSpace(string(out)), "\n")):])
	}
}
