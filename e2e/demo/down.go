package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// takeDown removes what demo and lab have put on this machine, and says what. It refuses while a lab runs.
func takeDown(ctx context.Context, dir string, s *screen) error {
	if os.Geteuid() != 0 {
		return &problem{
			"not root: the files in " + dir + " are root's",
			`run "make demo-down" as root, or: sudo env PATH="$PATH" make demo-down`,
		}
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		s.step("nothing to remove: there is no %s", dir)
		return nil
	}
	if err := rootsAlone(dir); err != nil {
		return err
	}
	// The locks are held to the end: who waits for one makes everything anew.
	locks, err := lockAll(dir)
	defer func() {
		for _, l := range locks {
			l.Close()
		}
	}()
	if err != nil {
		return err
	}
	if err := unmountBelow(dir); err != nil {
		return err
	}
	packages, err := os.ReadFile(filepath.Join(dir, installedNote))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if names := strings.Fields(string(packages)); len(names) > 0 {
		// dpkg, not apt-get: it refuses when something else has come to need one of them.
		cmd := exec.CommandContext(ctx, "dpkg", append([]string{"--purge"}, names...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			s.step("kept the packages %s: %v\n%s", strings.Join(names, " "), err, strings.TrimSpace(string(out)))
		} else {
			s.step("removed the packages that the demo had installed: %s", strings.Join(names, " "))
		}
	}
	for _, name := range ownNames(dir) {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := filepath.Join(dir, name)
		size, err := sizeOf(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if owner, err := ownerOf(path); err != nil || owner != 0 {
			s.step("kept %s: it is not root's", path)
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return &problem{fmt.Sprintf("cannot remove all of %s: %v", path, err),
				"see who uses it (fuser -vm " + path + "), then run make demo-down again"}
		}
		s.step("removed %s (%s)", path, size)
	}
	if err := os.Remove(dir); errors.Is(err, unix.ENOTEMPTY) {
		s.step("kept %s: there is something in it that is not the demo's", dir)
	} else if err != nil {
		s.step("kept %s, empty: %v", dir, err)
	} else {
		s.step("removed %s", dir)
	}
	s.step("kept the report (%s) and Go's own caches", reportDir)
	return nil
}

// rootsAlone returns an error where somebody other than root could have put something into a folder, or in its place: root purges the
// packages that a file in it names, and removes what is in it.
func rootsAlone(dir string) error {
	path, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	for at := path; ; at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		if err != nil {
			return err
		}
		owner, err := ownerOf(at)
		if err != nil {
			return err
		}
		// In a sticky folder such as /tmp nobody can rename another's entry.
		othersWrite := info.Mode().Perm()&0o022 != 0 && (at == path || info.Mode()&fs.ModeSticky == 0)
		if owner != 0 || othersWrite {
			return &problem{fmt.Sprintf("others than root can change %s: nothing in %s is removed", at, dir),
				"see what is there and remove it by hand, or set PGBATON_LAB_DIR to the folder that the demo was started with"}
		}
		if at == "/" {
			return nil
		}
	}
}

// ownerOf is the user id of a file's owner; a symbolic link is not followed.
func ownerOf(path string) (uint32, error) {
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil {
		return 0, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	return stat.Uid, nil
}

// ownNames are the entries of the directory that the scripts in scripts/, the lab and the demo make.
func ownNames(dir string) []string {
	names := []string{"run", installedNote, "demo-apt.log", "apt.lock", "promtool", "prometheus", "promtool.building", "promtool.log",
		"promtool.lock"}
	for _, suite := range suites {
		names = append(names, suite, suite+".building", suite+".log", suite+".lock")
	}
	runs, _ := filepath.Glob(filepath.Join(dir, runPrefix+"*"))
	for _, path := range runs {
		names = append(names, filepath.Base(path))
	}
	return names
}

// lockAll takes the lock of every suite and of every lab.
func lockAll(dir string) (held []*os.File, err error) {
	locks, _ := filepath.Glob(filepath.Join(dir, "run", "*.lock"))
	for _, suite := range suites {
		locks = append(locks, filepath.Join(dir, suite+".lock"))
	}
	for _, path := range locks {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return held, err
		}
		held = append(held, f)
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
			return held, &problem{fmt.Sprintf("a lab is in use (%s is locked)", path),
				"end the demo or the tests that use it (lslocks names the process), then run make demo-down again"}
		} else if err != nil {
			return held, fmt.Errorf("lock %s: %w", path, err)
		}
	}
	return held, nil
}

// unmountBelow unmounts everything below a directory, the innermost first. The directory itself may be somebody's disk.
func unmountBelow(dir string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, point := range mountsBelow(string(table), dir) {
		if err := syscall.Unmount(point, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			return &problem{fmt.Sprintf("cannot unmount %s: %v", point, err), "umount " + point + ", then try again"}
		}
	}
	return nil
}

// mountsBelow reads mount points from /proc/self/mountinfo, the latest first.
func mountsBelow(table, dir string) []string {
	var points []string
	for _, line := range strings.Split(table, "\n") {
		words := strings.Fields(line)
		if len(words) < 5 {
			continue
		}
		point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\134`, `\`).Replace(words[4])
		if strings.HasPrefix(point, strings.TrimSuffix(dir, "/")+"/") {
			points = append(points, point)
		}
	}
	slices.Reverse(points)
	slices.SortStableFunc(points, func(a, b string) int { return cmp.Compare(strings.Count(b, "/"), strings.Count(a, "/")) })
	return points
}

// sizeOf is how much a file or folder holds, for a person.
func sizeOf(path string) (string, error) {
	if _, err := os.Lstat(path); err != nil {
		return "", err
	}
	var total int64
	err := filepath.WalkDir(path, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
		return nil
	})
	switch {
	case total >= 1000*mib:
		return fmt.Sprintf("%.1f GB", float64(total)/1e9), err
	case total >= mib:
		return fmt.Sprintf("%d MB", total/mib), err
	}
	return fmt.Sprintf("%d kB", (total+1023)/1024), err
}
