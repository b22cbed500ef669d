// Package serve starts a real pgbaton serve, built from this tree.
package serve

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"
)

// Server is a running one.
type Server struct {
	URL string

	process *exec.Cmd
	said    *output
	ended   chan struct{}
	err     error // read after ended
}

type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

var listening = regexp.MustCompile(`msg=listening .*address=(\S+)`)

// Start builds it from the folder of the product into dir, writes the configuration there, and returns when it listens. It ends with the
// context, or by Stop.
func Start(ctx context.Context, product, dir, config string) (*Server, error) {
	binary, file := filepath.Join(dir, "pgbaton"), filepath.Join(dir, "pgbaton.yaml")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/pgbaton")
	build.Dir = product
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	s := &Server{process: exec.CommandContext(ctx, binary, "serve", "--config", file), said: &output{}, ended: make(chan struct{})}
	s.process.Stdout, s.process.Stderr = s.said, s.said
	if err := s.process.Start(); err != nil {
		return nil, err
	}
	go func() {
		s.err = s.process.Wait()
		close(s.ended)
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if m := listening.FindStringSubmatch(s.said.String()); m != nil {
			s.URL = "http://" + m[1]
			return s, nil
		}
		select {
		case <-s.ended:
			return nil, fmt.Errorf("serve has ended: %v\n%s", s.err, s.said)
		case <-ctx.Done():
			<-s.ended
			return nil, fmt.Errorf("serve does not listen: %w\n%s", ctx.Err(), s.said)
		case <-tick.C:
		}
	}
}

// Stop sends SIGTERM and waits for the end. The error says that it did not end with 0.
func (s *Server) Stop() error {
	_ = s.process.Process.Signal(syscall.SIGTERM)
	<-s.ended
	if s.err != nil {
		return fmt.Errorf("serve: %w\n%s", s.err, s.said)
	}
	return nil
}

// Log is what it has said so far.
func (s *Server) Log() string { return s.said.String() }
