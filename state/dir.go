package state

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Dir is this member's state directory. Everything works without one, for itself alone: the path is empty then.
type Dir struct {
	Path string
	Log  *slog.Logger
}

const maxState = 64 << 10 // bytes of one state file

// Write replaces a file of the state directory with a value as JSON: 0600, atomic, on the disk when it returns.
func Write(path string, value any) error {
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(content, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// tornAge is how old a file is that WriteState was killed at; it writes one in milliseconds.
const tornAge = time.Hour

// Sweep removes what a WriteState that was killed has left in a state directory.
func Sweep(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, ".*.json-*")) // the pattern is right
	for _, path := range left {
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > tornAge {
			_ = os.Remove(path)
		}
	}
}

func Read(path string, value any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxState))
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

// TryLock takes it or returns errBusy at once. Without a state directory it returns a lock that holds nobody up.
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

func (l *Lock) Release() {
	if l != nil && l.file != nil {
		_ = l.file.Close()
	}
}

// LockOwner reads who holds a lock.
func (d Dir) LockOwner(name string) (pid int, ok bool) {
	content, err := os.ReadFile(filepath.Join(d.Path, name))
	if err != nil {
		return 0, false
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(content)))
	return pid, err == nil && pid > 1
}
