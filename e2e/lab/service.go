package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// asService runs a command as a service of a node that lives on without it: while the file is there the service is stopped, and where it
// ends otherwise it is started anew. SIGTERM to the container stops the service, and the node with it.
var asService = []string{"sh", "-c", `trap 'over=1; kill -TERM $p' TERM
while [ -z "$over" ]; do
  while [ -e /etc/lab/` + stoppedFile + ` ]; do sleep 0.1; done
  "$@" & p=$!
  wait $p
  wait $p
done`, "sh"}

const stoppedFile = "stopped"

// StopPatroni ends Patroni with SIGTERM, as systemctl stop does, and returns when it and its server are gone. What else is on the node lives
// on. Only in a lab with the poolers beside the members.
func (m *Member) StopPatroni(ctx context.Context) error {
	if err := os.WriteFile(filepath.Join(m.etc, stoppedFile), nil, 0o644); err != nil {
		return err
	}
	p, err := m.Patroni()
	if err == nil {
		err = p.Kill(syscall.SIGTERM)
	}
	if err != nil {
		return err
	}
	return Until(ctx, 10*time.Millisecond, m.Name+"'s Patroni to end", func(context.Context) error {
		if p.Alive() {
			return errors.New("it has not")
		}
		return nil
	})
}

// KillServer ends Patroni and PostgreSQL at once, with SIGKILL; the rest as with [Member.StopPatroni].
func (m *Member) KillServer(ctx context.Context) error {
	if err := os.WriteFile(filepath.Join(m.etc, stoppedFile), nil, 0o644); err != nil {
		return err
	}
	if err := m.KillPatroni(); err != nil {
		return err
	}
	return Until(ctx, 10*time.Millisecond, m.Name+"'s servers to end", func(context.Context) error {
		processes, err := m.Processes()
		if err != nil {
			return err
		}
		left := 0
		for _, p := range processes {
			if p.Comm == "postgres" && p.Alive() {
				left++
				_ = p.Kill(syscall.SIGKILL)
			}
		}
		if left > 0 {
			return fmt.Errorf("%d are left", left)
		}
		return nil
	})
}

// StartPatroni starts the service again. It does not wait for it: see [Lab.WaitHealthy].
func (m *Member) StartPatroni() error { return os.Remove(filepath.Join(m.etc, stoppedFile)) }
