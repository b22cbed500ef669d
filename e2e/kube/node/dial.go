package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Dial connects to an address of a pod or a Service, as a process on the node does. The address is a number: this machine's name servers know
// nothing of the cluster's names.
func (n *Node) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	own, err1 := os.Open("/proc/thread-self/ns/net")
	theirs, err2 := os.Open(fmt.Sprintf("/proc/%d/ns/net", n.first.Process.Pid))
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	defer own.Close()
	defer theirs.Close()
	runtime.LockOSThread()
	if err := unix.Setns(int(theirs.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer func() {
		// A thread that cannot go back stays locked, and ends with its goroutine.
		if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		} else {
			err = errors.Join(err, back)
		}
	}()
	return new(net.Dialer).DialContext(ctx, network, address)
}
