package postgres_test

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/postgres"
)

// TestLookAtAnAddressThatMoves: a request that was lost is sent anew long before the kernel does it, which is after 1 s.
func TestLookAtAnAddressThatMoves(t *testing.T) {
	t.Parallel()
	// A listener whose queue is full answers no SYN, as a host that is gone.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	listening := os.NewFile(uintptr(fd), "listener")
	listener, err := net.FileListener(listening)
	if err != nil {
		t.Fatal(err)
	}
	_ = listening.Close()
	defer listener.Close()
	address := listener.Addr().String()
	full := false
	for range 10 {
		c, err := net.DialTimeout("tcp", address, 300*time.Millisecond)
		if full = err != nil; full {
			break
		}
		defer c.Close()
	}
	if !full {
		t.Fatal("its queue takes more than ten")
	}

	moved := make(chan time.Time, 1)
	go func() {
		time.Sleep(1050 * time.Millisecond) // the kernel's second request, after 1 s, is lost as well; its third comes after 2 s (Linux 6.5)
		moved <- time.Now()
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	local, err := postgres.Open("host=" + host + " port=" + port + " user=u dbname=d sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := local.Once().Connect(ctx); err == nil || postgres.Unreachable(err) {
		t.Errorf("%v, want a connection that is closed", err)
	}
	if late := time.Since(<-moved); late > 600*time.Millisecond {
		t.Errorf("reached %s after it could be", late)
	}
}
