package hooks

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const maxState = 64 << 10 // bytes of one state file

// WriteState replaces a file of the state directory with a value as JSON: 0600, atomic, on the disk when it returns.
func WriteState(path string, value any) error {
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

// SweepState removes what a WriteState that was killed has left in a state directory.
func SweepState(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, ".*.json-*")) // the pattern is right
	for _, path := range left {
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > tornAge {
			_ = os.Remove(path)
		}
	}
}

func readState(path string, value any) error {
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

// errBusy says that another process of this member holds a lock.
var errBusy = errors.New("held by another process")

// lock is an advisory lock on a file of the state directory. It ends with the process, however that ends. The file holds
// the owner's process id.
type lock struct{ file *os.File }

// tryLock takes it or returns errBusy at once. Without a state directory it returns a lock that holds nobody up.
func (rt *Runtime) tryLock(name string) (*lock, error) {
	if rt.Config.StateDir == "" {
		return &lock{}, nil
	}
	f, err := os.OpenFile(filepath.Join(rt.Config.StateDir, name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		rt.Log.Warn("cannot open a lock file, going on without", "error", err)
		return &lock{}, nil
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errBusy
		}
		rt.Log.Warn("cannot lock, going on without", "file", name, "error", err)
		return &lock{}, nil
	}
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	return &lock{file: f}, nil
}

func (l *lock) release() {
	if l != nil && l.file != nil {
		_ = l.file.Close()
	}
}

// owner reads who holds a lock.
func (rt *Runtime) lockOwner(name string) (pid int, ok bool) {
	content, err := os.ReadFile(filepath.Join(rt.Config.StateDir, name))
	if err != nil {
		return 0, false
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(content)))
	return pid, err == nil && pid > 1
}

// stopWorker ends a worker of this member that is still at it, and blocks until it has gone, 1 s at most. What a worker
// leaves undone the next one finds: it keeps nothing to itself.
func (rt *Runtime) stopWorker() {
	if rt.Config.StateDir == "" || rt.DryRun {
		return
	}
	held, err := rt.tryLock(workerLock)
	if err == nil {
		held.release()
		return
	}
	pid, ok := rt.lockOwner(workerLock)
	if !ok {
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	// Read after the pidfd was opened, so that it is this process's and not a later one's.
	cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil || !strings.Contains(string(cmdline), "\x00"+workCommand) {
		return
	}
	rt.Log.Info("stopping the worker that is still at an earlier event", "pid", pid)
	_ = unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0)
	if !waitExit(fd, 500*time.Millisecond) {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		waitExit(fd, 500*time.Millisecond)
	}
}

func waitExit(pidfd int, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if n > 0 {
			return true
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
	}
}

const (
	guardLock   = "guard.lock"
	workerLock  = "worker.lock"
	keepCommand = "_keep"
	workCommand = "_work"
)
