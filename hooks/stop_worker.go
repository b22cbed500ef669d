package hooks

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/process"
)

// Locks of this member.
const (
	guardLock  = "guard.lock"
	workerLock = "worker.lock"
)

// stopWorkerTimeout is how long a worker may take to end after SIGTERM, and again after SIGKILL.
const stopWorkerTimeout = 500 * time.Millisecond

// stopWorker ends a worker of this member that still runs, and blocks until it has gone, 1 s at most. What a worker
// leaves undone the next one finds: it keeps nothing to itself.
func stopWorker(m *member.Member) {
	if m.Config.StateDir == "" || m.DryRun {
		return
	}
	held, err := m.StateDir().TryLock(workerLock)
	if err == nil {
		held.Release()
		return
	}
	pid, ok := m.StateDir().LockOwner(workerLock)
	if !ok {
		return
	}
	worker, err := process.Open(pid)
	if err != nil {
		return
	}
	defer worker.Close()
	args, err := worker.Args()
	if err != nil || !slices.Contains(args, member.WorkCommand) {
		return
	}
	m.Log.Info("stopping the worker of an earlier event", "pid", pid)
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		_ = worker.Signal(signal)
		ctx, cancel := context.WithTimeout(context.Background(), stopWorkerTimeout)
		err := worker.Wait(ctx)
		cancel()
		if err == nil {
			return
		}
	}
}
