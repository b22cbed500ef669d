package hooks

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/member"
)

// Locks of this member.
const (
	guardLock  = "guard.lock"
	workerLock = "worker.lock"
)

// stopWorker ends a worker of this member that is still at it, and blocks until it has gone, 1 s at most. What a worker
// leaves undone the next one finds: it keeps nothing to itself.
func stopWorker(rt *member.Member) {
	if rt.Config.StateDir == "" || rt.DryRun {
		return
	}
	held, err := rt.StateDir().TryLock(workerLock)
	if err == nil {
		held.Release()
		return
	}
	pid, ok := rt.StateDir().LockOwner(workerLock)
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
	if err != nil || !strings.Contains(string(cmdline), "\x00"+member.WorkCommand) {
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
