package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/member"
)

type installCmd struct {
	Dir    string `arg:"" complete:"dir" help:"Directory from which Patroni can run programs, such as /callbacks."`
	DryRun bool   `help:"Print what would be done."`
}

func (c *installCmd) Run(p *program) error {
	info, err := os.Stat(c.Dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return p.refuse("cannot install into %q: it is not there: make the directory first", c.Dir)
	case err != nil:
		return p.refuse("cannot install into %q: %v", c.Dir, unwrapped(err))
	case !info.IsDir():
		return p.refuse("cannot install into %q: it is not a directory", c.Dir)
	}
	// Before anything is changed: an incomplete installation would be worse than none.
	for _, name := range append(linkNames(), "pgbaton") {
		if info, err := os.Lstat(filepath.Join(c.Dir, name)); err == nil && info.IsDir() {
			return p.refuse(
				"cannot install into %q: %s in it is a directory: remove it first (a volume mount with subPath creates one)",
				c.Dir,
				name,
			)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	target := filepath.Join(c.Dir, "pgbaton")
	if c.DryRun {
		fmt.Fprintf(p.stdout, "would copy %s to %s\n", self, target)
		for _, name := range linkNames() {
			fmt.Fprintf(p.stdout, "would link %s to pgbaton\n", filepath.Join(c.Dir, name))
		}
		return nil
	}
	if sameFile(self, target) {
		fmt.Fprintf(p.stdout, "%s is this program already\n", target)
	} else {
		if err := copyProgram(self, c.Dir, target); err != nil {
			return fmt.Errorf("install %s: %w", target, err)
		}
		fmt.Fprintf(p.stdout, "copied %s to %s\n", self, target)
	}
	for _, name := range linkNames() {
		if err := replaceLink(c.Dir, name); err != nil {
			return fmt.Errorf("link %s: %w", filepath.Join(c.Dir, name), err)
		}
		fmt.Fprintf(p.stdout, "linked %s to pgbaton\n", filepath.Join(c.Dir, name))
	}
	return file.SyncDir(c.Dir)
}

func (p *program) refuse(format string, args ...any) error {
	fmt.Fprintf(p.stderr, "pgbaton: "+format+"\n", args...)
	p.code = member.Refused
	return nil
}

func unwrapped(err error) error {
	if path, ok := err.(*os.PathError); ok {
		return path.Err
	}
	return err
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Lstat(b)
	return err == nil && os.SameFile(x, y)
}

// copyProgram puts the copy in place with one rename: Patroni may start the old one at any
// moment, and a program that runs cannot be written to.
func copyProgram(from, dir, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	temp, err := os.CreateTemp(dir, ".pgbaton-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = temp.Close()
			_ = os.Remove(temp.Name())
		}
	}()
	if _, err = io.Copy(temp, in); err != nil {
		return err
	}
	if err = temp.Chmod(0o755); err != nil { // whatever the umask is: another user runs it
		return err
	}
	if err = temp.Sync(); err != nil {
		return err
	}
	if err = temp.Close(); err != nil {
		return err
	}
	return os.Rename(temp.Name(), to)
}

func replaceLink(dir, name string) error {
	path := filepath.Join(dir, name)
	if to, err := os.Readlink(path); err == nil && to == "pgbaton" {
		return nil
	}
	temp := filepath.Join(dir, fmt.Sprintf(".%s-%d", name, os.Getpid()))
	if err := os.Symlink("pgbaton", temp); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		_ = os.Remove(temp)
		return err
	}
	return nil
}
