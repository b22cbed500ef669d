package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSecondSignal: serve that is asked to end waits for what runs; asked again, it is gone at once, as any command is.
func TestSecondSignal(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "pgbaton")
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	// A pooler that takes a connection and says nothing: a pause waits for it.
	pooler, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pooler.Close()
	asked := make(chan struct{}, 100)
	go func() {
		for {
			c, err := pooler.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			asked <- struct{}{}
		}
	}()
	config := "patroni: {url: \"http://127.0.0.1:1\"}\nstate_dir: " + dir + "/state\npoolers: [{dsn: \"postgres://a@" +
		pooler.Addr().String() + "/pgbouncer?sslmode=disable\"}]\nserve: {listen: \"127.0.0.1:0\", grace: 1m}\n"
	if err := os.WriteFile(dir+"/pgbaton.yaml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", "--config", dir+"/pgbaton.yaml")
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	lines := bufio.NewScanner(stderr)
	wait := func(text string) string {
		t.Helper()
		for lines.Scan() {
			t.Log(lines.Text())
			if _, rest, ok := strings.Cut(lines.Text(), text); ok {
				return rest
			}
		}
		t.Fatalf("serve has ended, and has not said %q", text)
		return ""
	}
	address, _, _ := strings.Cut(wait("address="), " ")
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "POST /v1/pgbouncer/pause HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-asked
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wait("no operation is started any more")
	began := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}
