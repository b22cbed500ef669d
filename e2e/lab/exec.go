package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// ExecResult is what a program run inside a container has left.
type ExecResult struct {
	Stdout, Stderr string
	ExitCode       int // -1 where a signal has ended it
	Took           time.Duration
}

// Running is a program that was started inside a container.
type Running struct {
	c     *container
	name  string
	cmd   *exec.Cmd
	files [2]*os.File
	begin time.Time
	ctx   context.Context
	ended chan struct{}
	took  time.Duration // when it has ended
	err   error
}

// exec runs argv inside the container and waits for its end. A program that ends with an exit code
// other than 0 is no error. Children that it leaves running do not keep exec waiting.
func (c *container) exec(ctx context.Context, user string, env []string, argv ...string) (ExecResult, error) {
	r, err := c.startExec(ctx, user, env, argv...)
	if err != nil {
		return ExecResult{}, err
	}
	return r.Wait()
}

// startExec is exec without the wait. When ctx ends the program is killed.
func (c *container) startExec(ctx context.Context, user string, env []string, argv ...string) (*Running, error) {
	if !c.running() {
		return nil, fmt.Errorf("%s does not run", c.name)
	}
	if len(argv) == 0 {
		return nil, errors.New("exec: no program")
	}
	words := []string{"--target", strconv.Itoa(c.pid), "--mount", "--uts", "--pid", "--root", "--wd", "--",
		"setpriv", "--reuid=" + user, "--regid=" + user, "--init-groups", "--", "env", "-i"}
	words = append(append(words, env...), argv...)
	r := &Running{c: c, name: argv[0], cmd: exec.CommandContext(ctx, "nsenter", words...), ctx: ctx, ended: make(chan struct{})}
	// Files, not pipes: a pipe would keep Wait waiting for a detached child that has inherited it.
	for i := range r.files {
		f, err := os.CreateTemp("", "pgbaton-lab-exec-")
		if err != nil {
			r.close()
			return nil, err
		}
		os.Remove(f.Name())
		r.files[i] = f
	}
	r.cmd.Stdout, r.cmd.Stderr = r.files[0], r.files[1]
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r.cmd.Cancel = func() error { return syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL) }
	r.begin = time.Now()
	if err := r.cmd.Start(); err != nil {
		r.close()
		return nil, fmt.Errorf("%s in %s: %w", r.name, c.name, err)
	}
	go func() {
		r.err = r.cmd.Wait()
		r.took = time.Since(r.begin)
		close(r.ended)
	}()
	return r, nil
}

func (r *Running) close() {
	for _, f := range r.files {
		if f != nil {
			f.Close()
		}
	}
}

// Ended tells whether the program has ended.
func (r *Running) Ended() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// Stdout is what the program has written so far. Not after Wait.
func (r *Running) Stdout() string { return contentOf(r.files[0]) }

// Stderr is what the program has written there so far. Not after Wait.
func (r *Running) Stderr() string { return contentOf(r.files[1]) }

func contentOf(f *os.File) string {
	content, _ := io.ReadAll(io.NewSectionReader(f, 0, 1<<26))
	return string(content)
}

// Signal sends the program itself a signal: neither what it has started nor what brought it into the container.
func (r *Running) Signal(sig syscall.Signal) error {
	processes, err := r.c.processes()
	if err != nil {
		return err
	}
	for _, p := range processes {
		if p.PPID == r.cmd.Process.Pid {
			return p.Kill(sig)
		}
	}
	return fmt.Errorf("%s in %s does not run", r.name, r.c.name)
}

// Wait waits for the program's end and returns what it has left; it may be called once.
func (r *Running) Wait() (ExecResult, error) {
	<-r.ended
	defer r.close()
	result := ExecResult{Stdout: r.Stdout(), Stderr: r.Stderr(), ExitCode: -1, Took: r.took}
	if r.cmd.ProcessState != nil {
		result.ExitCode = r.cmd.ProcessState.ExitCode()
	}
	var exit *exec.ExitError
	if r.ctx.Err() != nil {
		return result, fmt.Errorf("%s in %s: %w", r.name, r.c.name, r.ctx.Err())
	}
	if r.err != nil && !errors.As(r.err, &exit) {
		return result, fmt.Errorf("%s in %s: %w", r.name, r.c.name, r.err)
	}
	return result, nil
}
