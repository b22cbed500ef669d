// Package process holds another process of this machine by a pidfd (Linux 5.3): when it ends and its number is given
// to another process, that one is neither looked at nor signalled. It stands below the clients, which know what their
// process must look like; it knows none of them.
//
// What is read of a process ([Process.Name], [Process.UID], …) comes from /proc by number. It is of this process, or an
// error for which errors.Is(err, os.ErrNotExist) holds: after each look the pidfd tells whether the process still lives.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// reapInterval is how often [Process.Reaped] looks whether a process that has exited was reaped: signal 0, 1 µs.
const reapInterval = 2 * time.Millisecond

// ErrZombie says that a process has exited and that nobody has reaped it: its parent is gone and the container's first process
// does not reap, or its parent does not wait for it.
var ErrZombie = errors.New("has exited and was not reaped")

// Process is a process, for ever the same. It is safe for concurrent use, also of Close.
type Process struct {
	PID  int
	file *os.File
	raw  syscall.RawConn // of file: Close in another goroutine does not pull the descriptor away
}

// Open takes hold of a process. errors.Is(err, os.ErrNotExist): there is none, or it has ended and waits to be reaped.
func Open(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.EINVAL) && pid > 0 { // before Linux 5.10
		if fd, err = unix.PidfdOpen(pid, 0); err == nil {
			if err = unix.SetNonblock(fd, true); err != nil {
				_ = unix.Close(fd)
			}
		}
	}
	if errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("process %d: %w", pid, os.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("process %d: pidfd_open: %w", pid, err)
	}
	p := &Process{PID: pid, file: os.NewFile(uintptr(fd), "pidfd")}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		p.Close()
		return nil, fmt.Errorf("process %d: pidfd: %w", pid, err)
	}
	if p.Ended() {
		p.Close()
		return nil, fmt.Errorf("process %d: %w", pid, os.ErrNotExist)
	}
	return p, nil
}

// Ended reports whether the process is gone. A zombie is: it takes every signal as if it heard it.
func (p *Process) Ended() bool {
	ended := false
	err := p.raw.Control(func(fd uintptr) { ended, _ = readable(fd) })
	return err == nil && ended
}

// readable is true of a pidfd from the exit of its process on, reaped or not.
func readable(fd uintptr) (bool, error) {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	if errors.Is(err, unix.EINTR) {
		err = nil
	}
	return n > 0, err
}

// Signal sends a signal and does not wait for what it does. The error is [os.ErrNotExist] when the process has exited, reaped or not, and
// EPERM when we may not signal it.
func (p *Process) Signal(s unix.Signal) error {
	err := os.ErrNotExist
	if !p.Ended() {
		err = p.send(s)
	}
	if err != nil {
		return fmt.Errorf("process %d: %s: %w", p.PID, unix.SignalName(s), err)
	}
	return nil
}

// send is [os.ErrNotExist] for a process that was reaped; a zombie takes the signal.
func (p *Process) send(s unix.Signal) error {
	var err error
	if closed := p.raw.Control(func(fd uintptr) { err = unix.PidfdSendSignal(int(fd), s, nil, 0) }); closed != nil {
		return closed
	}
	if errors.Is(err, unix.ESRCH) {
		return os.ErrNotExist
	}
	return err
}

// Wait blocks until the process has exited, and returns nil also where it is a zombie; when ctx ends before that, the context's error. A
// process that has exited already is told also when ctx is over.
func (p *Process) Wait(ctx context.Context) error {
	if err := p.exited(ctx); err != nil {
		return fmt.Errorf("process %d still runs: %w", p.PID, err)
	}
	return nil
}

// Reaped blocks until the process has exited and its parent, or init, has reaped it. When ctx ends before that: [ErrZombie] when it
// has exited, else the context's error.
func (p *Process) Reaped(ctx context.Context) error {
	if err := p.Wait(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(reapInterval)
	defer tick.Stop()
	for {
		err := p.send(0)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return nil
		case err != nil && !errors.Is(err, unix.EPERM): // a process of another user that is still there
			return fmt.Errorf("process %d: %w", p.PID, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d %w", p.PID, ErrZombie)
		case <-tick.C:
		}
	}
}

func (p *Process) exited(ctx context.Context) error {
	if ctx.Err() != nil {
		if p.Ended() {
			return nil
		}
		return ctx.Err()
	}
	// A descriptor of its own, with a deadline of its own: others may wait for the same process.
	fd := -1
	var err error
	if closed := p.raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) }); closed != nil || err != nil {
		return errors.Join(closed, err)
	}
	file := os.NewFile(uintptr(fd), "pidfd")
	defer file.Close()
	stop := context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		ended, err := readable(fd)
		failed = err
		return ended || err != nil
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if p.Ended() {
			return nil
		}
		return ctx.Err()
	}
	return errors.Join(err, failed)
}

// Close lets go of the process. It may be called twice.
func (p *Process) Close() { _ = p.file.Close() }
