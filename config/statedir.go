package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

const defaultStateDir = "/run/pgbaton"

// errNotMade: there is no such directory, and there could be one.
var errNotMade = errors.New("does not exist")

// openStateDir makes dir when it is not there and says why it cannot be ours to write in: what
// stands in it decides whom a keeper resumes, so nobody else may put anything there. With lookOnly it makes nothing: errNotMade.
func openStateDir(dir string, lookOnly bool) error {
	if lookOnly {
		_, err := os.Lstat(dir)
		if _, above := os.Stat(filepath.Dir(dir)); errors.Is(err, os.ErrNotExist) && above == nil {
			return errNotMade
		}
	}
	if err := os.Mkdir(dir, 0o700); errors.Is(err, os.ErrNotExist) {
		return errors.New("cannot be made: make the directory above it first")
	} else if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	switch {
	case info.Mode()&os.ModeSymlink != 0:
		return errors.New("is a symbolic link: name the directory itself")
	case !info.IsDir():
		return errors.New("is not a directory")
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
		return fmt.Errorf("belongs to uid %d, and we are uid %d: run pgbaton as the user that Patroni runs as", owner, os.Geteuid())
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("others may write in it (mode %04o): chmod 700", mode)
	}
	if err := ownedAbove(dir); err != nil {
		return err
	}
	// A read-only file system, as in a hardened pod, looks fine until the first write.
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("cannot be written: %w", err)
	}
	return nil
}

// fallbackStateDir is used where nothing was configured and defaultStateDir is not for us.
func fallbackStateDir(tmp string) string {
	return filepath.Join(tmp, fmt.Sprintf("pgbaton-%d", os.Geteuid()))
}

func (l *loader) openStateDir() error {
	c, lookOnly := &l.config, l.options.LookOnly
	if c.StateDir != "" {
		v := l.where("state_dir")
		if err := openStateDir(c.StateDir, lookOnly); errors.Is(err, errNotMade) {
			c.StateDir = ""
		} else if err != nil {
			problem := stateDirProblem(c.StateDir, err)
			c.StateDir = ""
			return v.fail(problem, "", errors.Join(ErrStateDir, err))
		}
		return nil
	}
	if openStateDir(defaultStateDir, lookOnly) == nil {
		c.StateDir = defaultStateDir
		return nil
	}
	tmp, ok := l.env("TMPDIR")
	if !ok {
		tmp = "/tmp"
	}
	dir := fallbackStateDir(tmp)
	if err := openStateDir(dir, lookOnly); errors.Is(err, errNotMade) {
		return nil
	} else if err != nil {
		return &Error{Name: "state_dir", Problem: stateDirProblem(dir, err), Hint: "set state_dir to a directory of your own",
			Err: errors.Join(ErrStateDir, err)}
	}
	c.StateDir = dir
	return nil
}

func stateDirProblem(dir string, err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return fmt.Sprintf("%s: %v", dir, path.Err)
	}
	return fmt.Sprintf("%s %v", dir, err)
}

func ownedByRoot(info fs.FileInfo) bool {
	sys, ok := info.Sys().(*syscall.Stat_t)
	return ok && sys.Uid == 0
}
