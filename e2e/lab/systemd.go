package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// systemdTarget is what systemd starts in a member: nothing that Debian's packages have enabled beside Patroni.
const systemdTarget = `[Unit]
Description=A member of the lab
Requires=basic.target
Wants=patroni.service
After=basic.target patroni.service
`

// notOurs are mounts of the kernel's own file systems, and its modules: they belong to the machine.
var notOurs = []string{"dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
	"sys-kernel-config.mount", "sys-fs-fuse-connections.mount", "proc-sys-fs-binfmt_misc.automount", "proc-sys-fs-binfmt_misc.mount",
	"systemd-binfmt.service", "tmp.mount", "modprobe@.service"}

// journal leaves the machine's own messages out of a member's journal.
const journal = "[Journal]\nReadKMsg=no\nAudit=no\n"

// underSystemd has the member's container start systemd, which starts Patroni.
func (m *Member) underSystemd() error {
	etc := filepath.Join(m.spec.dir, "upper/etc/systemd")
	units := filepath.Join(etc, "system")
	if err := errors.Join(os.MkdirAll(units, 0o755), os.MkdirAll(filepath.Join(etc, "journald.conf.d"), 0o755)); err != nil {
		return err
	}
	errs := []error{os.WriteFile(filepath.Join(units, "lab.target"), []byte(systemdTarget), 0o644),
		os.WriteFile(filepath.Join(etc, "journald.conf.d/lab.conf"), []byte(journal), 0o644)}
	for _, name := range notOurs {
		errs = append(errs, os.Symlink("/dev/null", filepath.Join(units, name)))
	}
	root, err := cgroupRoot()
	m.spec.cgroup = filepath.Join(root, cgroupName(m.lab.n)+m.Name)
	m.spec.env["container"] = "lab" // systemd's own variable: it is process 1 of a container
	m.spec.argv = []string{"/usr/lib/systemd/systemd", "--system", "--unit=lab.target", "--show-status=no", "--log-target=journal-or-kmsg",
		"--log-level=warning"}
	return errors.Join(append(errs, err)...)
}

// cgroupName is how the names of a lab's control groups begin.
func cgroupName(n int) string { return fmt.Sprintf("pgbaton-lab-%d-", n) }

// cgroupRoot is where the second version of control groups is mounted on this machine: at /sys/fs/cgroup, or beside the first one.
func cgroupRoot() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1], nil
		}
	}
	return "", errors.New("no cgroup2 is mounted on this machine, and systemd needs one")
}

// CanSystemd says why [Options.Systemd] cannot be had on this machine; nil: it can. A container may have no second version of control
// groups, or one that nobody may write to.
func CanSystemd() error {
	root, err := cgroupRoot()
	if err != nil {
		return err
	}
	probe, err := os.MkdirTemp(root, "pgbaton-lab-probe-")
	if err != nil {
		return fmt.Errorf("systemd needs a control group of its own: %w", err)
	}
	return os.Remove(probe)
}

// openCgroup makes a control group, or takes the one that is there.
func openCgroup(path string) (*os.File, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, err
	}
	return os.Open(path)
}

// clearCgroups removes the control groups of a lab whose processes have ended.
func clearCgroups(n int) error {
	root, err := cgroupRoot()
	if err != nil {
		return nil // so there are none
	}
	groups, err := filepath.Glob(filepath.Join(root, cgroupName(n)+"*"))
	if err != nil {
		return err
	}
	for _, group := range groups {
		var dirs []string
		err := filepath.WalkDir(group, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, dir := range slices.Backward(dirs) {
			if err := os.Remove(dir); err != nil {
				return err
			}
		}
	}
	return nil
}
