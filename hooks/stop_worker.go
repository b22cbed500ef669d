package hooks

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/process"
)

// guardLock is the lock of this member's guard.
const guardLock = "guard.lock"

// stopWorkerTimeout is how long a worker may take to end after SIGTERM, and again after SIGKILL.
const stopWorkerTimeout = 500 * time.Millisecond

// stopWorker ends a worker of this member that still runs, and blocks until it has gone, 1 s at most. What a worker
// leaves undone the next one finds: it keeps nothing to itself.
func stopWorker(m *member.Member) {
	if m.DryRun {
		return
	}
	worker, pid, _ := runningWorker(m)
	if worker == nil {
		return
	}
	defer worker.Close()
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

// workerOf reports whether a worker of this member runs that was started for this action, and its process id.
func workerOf(m *member.Member, action string) (pid int, ok bool) {
	worker, pid, args := runningWorker(m)
	if worker == nil {
		return 0, false
	}
	worker.Close()
	return pid, slices.Contains(args, action)
}

// runningWorker finds the process that holds the worker's lock, and what it was started with behind the subcommand's name. It is nil where
// there is none, or that process is no worker. The caller closes it.
func runningWorker(m *member.Member) (worker *process.Process, pid int, args []string) {
	if m.Config.StateDir == "" {
		return nil, 0, nil
	}
	lock, err := m.StateDir().TryLock(member.WorkerLock)
	if err == nil {
		lock.Release()
		return nil, 0, nil
	}
	pid, ok := m.StateDir().LockOwner(member.WorkerLock)
	if !ok {
		return nil, 0, nil
	}
	worker, err = process.Open(pid)
	if err != nil {
		return nil, 0, nil
	}
	if args, err = worker.Args(); err == nil {
		if i := slices.Index(args, member.WorkCommand); i >= 0 {
			return worker, pid, args[i+1:]
		}
	}
	worker.Close()
	return nil, 0, nil
}
