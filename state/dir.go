package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/file"
)

// Dir is this member's state directory. Everything works without one, for itself alone: the path is empty then.
type Dir struct {
	Path string
	Log  *slog.Logger
}

// Bytes that are read of one file.
const (
	maxState = 64 << 10
	maxLock  = 64 // a process id
)

// Write replaces a file of the state directory with a value as JSON: 0600, atomic, on the disk when it returns.
func Write(path string, value any) error {
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	f, err := write(path, content, false)
	if err == nil {
		_ = f.Close()
	}
	return err
}

// WriteLocked is [Write], and holds a lock on the new file until it is released or this process ends, however it ends: the file says by
// itself, to [Locked] and [Claim], whether who wrote it still lives. The file has no moment under its name without the lock. On a file
// system without locks nobody can tell, and the file counts as locked for ever.
func WriteLocked(path string, value any) (*Lock, error) {
	content, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	if len(content) >= maxState {
		return nil, fmt.Errorf("%s: %d bytes are more than can be read back", path, len(content))
	}
	f, err := write(path, content, true)
	if err != nil {
		return nil, err
	}
	return &Lock{file: f}, nil
}

func write(path string, content []byte, locked bool) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // 0600
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*os.File, error) {
		_ = f.Close()
		_ = os.Remove(f.Name())
		return nil, err
	}
	if locked {
		_ = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) // the file is new and has no other name: nobody else can have locked it
	}
	if _, err = f.Write(append(content, '\n')); err != nil {
		return fail(err)
	}
	if err = f.Sync(); err != nil {
		return fail(err)
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return fail(err)
	}
	if err := file.SyncDir(filepath.Dir(path)); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Locked reports whether the process that wrote a file with [WriteLocked] still lives; also where that cannot be found out. It does not
// block.
func Locked(path string) bool {
	f, err := file.Open(path)
	if err != nil {
		return false
	}
	defer unlock(f)
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

// Claim reads a file that was written with [WriteLocked] by a process that has ended, and locks it, so that of several only one claims it.
// It returns [ErrBusy] while that process lives, or where another has claimed it. It does not block.
func Claim(path string, value any) (*Lock, error) {
	f, err := file.Open(path)
	if err != nil {
		return nil, err
	}
	// Also where the file system has no locks (ENOLCK, EOPNOTSUPP): then nobody can tell whether the process lives.
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		_ = f.Close()
		return nil, ErrBusy
	}
	content, err := io.ReadAll(io.LimitReader(f, maxState))
	if err == nil {
		err = json.Unmarshal(content, value)
	}
	// Between opening and locking another may have claimed it and written it anew.
	if err == nil && !sameFile(f, path) {
		err = ErrBusy
	}
	if err != nil {
		unlock(f)
		return nil, err
	}
	return &Lock{file: f}, nil
}

// sameFile reports whether an open file still has its name.
func sameFile(f *os.File, path string) bool {
	ours, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(ours, named)
}

// tornAge is how old a file is that [Write] was killed at; it writes one in milliseconds.
const tornAge = time.Hour

// Sweep removes what a [Write] that was killed has left in a state directory.
func Sweep(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, ".*.json-*")) // the pattern is right
	for _, path := range left {
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > tornAge {
			_ = os.Remove(path)
		}
	}
}

// Read reads what [Write] has written. A file that is too long, or no regular file, is an error.
func Read(path string, value any) error {
	content, err := file.Read(path, maxState)
	if err != nil {
		return err
	}
	return json.Unmarshal(content, value)
}

// ErrBusy says that another process of this member holds a lock.
var ErrBusy = errors.New("held by another process")

// Lock is an advisory lock on a file of the state directory. It ends with the process, however that ends. The file holds
// the owner's process id.
type Lock struct{ file *os.File }

// TryLock takes it or returns [ErrBusy] at once. Without a state directory it returns a lock that holds nobody up.
func (d Dir) TryLock(name string) (*Lock, error) {
	if d.Path == "" {
		return &Lock{}, nil
	}
	f, err := os.OpenFile(filepath.Join(d.Path, name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		d.Log.Warn("cannot open a lock file, going on without", "error", err)
		return &Lock{}, nil
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		d.Log.Warn("cannot lock, going on without", "file", name, "error", err)
		return &Lock{}, nil
	}
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	return &Lock{file: f}, nil
}

// Names reports whether the locked file is the one that has this name: it was neither removed nor replaced.
func (l *Lock) Names(path string) bool { return l != nil && l.file != nil && sameFile(l.file, path) }

// Release lets it go. It may be called of no lock, and twice.
func (l *Lock) Release() {
	if l != nil && l.file != nil {
		unlock(l.file)
	}
}

// unlock lets a lock go and closes the file. A close alone lets go only when the last copy of the descriptor is closed, and a process that
// another goroutine starts at this moment has one until its exec.
func unlock(f *os.File) {
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
	_ = f.Close()
}

// LockOwner reads which process took a lock last. It may have ended.
func (d Dir) LockOwner(name string) (pid int, ok bool) {
	content, err := file.Read(filepath.Join(d.Path, name), maxLock)
	if err != nil {
		return 0, false
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(content)))
	return pid, err == nil && pid > 1
}
