package file

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrChanged says that somebody else has changed a file since it was read.
var ErrChanged = errors.New("was changed by somebody else meanwhile")

// BeforeSuffix is what the name of the file of before has behind that of a file that [Replace] has replaced.
const BeforeSuffix = ".before"

// MayReplace says whether [Replace] could replace a file, as far as can be known without touching anything: a [*Problem] where it could
// not. A file that is mounted from a ConfigMap or Secret is one that the kubelet puts back; a read-only one is not meant to be changed.
func MayReplace(path string) error {
	_, err := replaceable(path)
	return err
}

// replaceable is the file itself, without the symbolic links that lead to it.
func replaceable(path string) (string, error) {
	fail := func(problem, hint string, cause error) (string, error) {
		return "", &Problem{File: path, Problem: problem, Hint: hint, Err: cause}
	}
	hops := Walk("", path)
	for _, hop := range hops {
		if strings.HasPrefix(hop.Name, "..") {
			return fail("is mounted from a ConfigMap or Secret ("+hop.Name+"), which the kubelet writes and nobody else",
				"copy it to a volume of its own, an emptyDir, before PgBouncer starts", nil)
		}
	}
	real := hops[len(hops)-1].Path()
	f, err := Open(real)
	if err != nil {
		return fail("cannot be read: "+withoutPath(err).Error(), "", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fail("cannot be read: "+withoutPath(err).Error(), "", err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	switch euid := os.Geteuid(); {
	case info.Mode().Perm()&0o222 == 0:
		return fail("is read-only", "chmod u+w", nil)
	case euid != 0 && int(owner.Uid) != euid:
		return fail(fmt.Sprintf("belongs to user %d, and only that user can replace it with a file that is its own", owner.Uid),
			"run pgbaton as that user, or chown the file", nil)
	}
	for _, name := range []string{real, filepath.Dir(real)} {
		if err := unix.Faccessat(unix.AT_FDCWD, name, unix.W_OK, unix.AT_EACCESS); err != nil {
			return fail("cannot be replaced: "+name+": "+err.Error(), "", err)
		}
	}
	return real, nil
}

// Replace puts a text in the place of another one, which the file still must have: else it is [ErrChanged], and what somebody else has
// written stands. The new file has the owner, mode and extended attributes of the old one and is on the disk when this returns. Whoever
// reads the path meanwhile reads one of the two, whole. The old file, the very one, is kept beside it under the same name with
// [BeforeSuffix]. Other errors are those of [MayReplace] and of the disk; then the old file stands.
func Replace(path string, before, after []byte) error {
	real, err := replaceable(path)
	if err != nil {
		return err
	}
	fail := func(err error) error {
		return &Problem{File: path, Problem: "cannot be replaced: " + err.Error(), Err: err}
	}
	same := func(name string) error {
		now, err := Read(name, int64(len(before)))
		if long := (*TooLargeError)(nil); err == nil && !bytes.Equal(now, before) || errors.As(err, &long) {
			return ErrChanged
		}
		return err
	}
	if err := same(real); err != nil {
		return fail(err)
	}
	next, err := beside(real, after)
	if err != nil {
		return fail(err)
	}
	defer os.Remove(next) // what is left of it
	if err := same(real); err != nil {
		return fail(err)
	}
	switch err := unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, real, unix.RENAME_EXCHANGE); {
	case err == nil:
		// What was in its place until just now is seen only now.
		if err := same(next); err != nil {
			return fail(errors.Join(err, unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, real, unix.RENAME_EXCHANGE)))
		}
		if err := os.Rename(next, real+BeforeSuffix); err != nil {
			return fail(errors.Join(err, unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, real, unix.RENAME_EXCHANGE)))
		}
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS): // a file system that cannot exchange two names
		if err := errors.Join(keep(real), os.Rename(next, real)); err != nil {
			return fail(err)
		}
	default:
		return fail(err)
	}
	if err := SyncDir(filepath.Dir(real)); err != nil {
		return fail(err)
	}
	return nil
}

// keep gives a file the name of the file of before as well.
func keep(path string) error {
	link := path + BeforeSuffix + "~"
	_ = os.Remove(link)
	if err := os.Link(path, link); err != nil {
		return err
	}
	return os.Rename(link, path+BeforeSuffix)
}

// beside writes a new file that is like another one but for its content, and returns its name. One name is used for all, so that a process
// that was killed leaves no more than one behind.
func beside(path string, content []byte) (_ string, err error) {
	name := path + ".new"
	old, err := Open(path)
	if err != nil {
		return "", err
	}
	defer old.Close()
	info, err := old.Stat()
	if err != nil {
		return "", err
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return "", err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			_ = os.Remove(name)
		}
	}()
	owner := info.Sys().(*syscall.Stat_t)
	if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
		return "", err
	}
	if err := f.Chmod(info.Mode()); err != nil {
		return "", err
	}
	copyAttributes(old, f)
	if _, err := f.Write(content); err != nil {
		return "", err
	}
	return name, f.Sync()
}

// maxAttribute is what Linux allows for one extended attribute, and for the list of their names.
const maxAttribute = 64 << 10

// copyAttributes copies access lists and security labels, as far as we may.
func copyAttributes(from, to *os.File) {
	names, value := make([]byte, maxAttribute), make([]byte, maxAttribute)
	n, err := unix.Flistxattr(int(from.Fd()), names)
	if err != nil {
		return
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if n, err := unix.Fgetxattr(int(from.Fd()), name, value); err == nil && name != "" {
			_ = unix.Fsetxattr(int(to.Fd()), name, value[:n], 0)
		}
	}
}

// SyncDir has what a directory names on the disk: a file that was made or renamed there is still there after a crash.
func SyncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
