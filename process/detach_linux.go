package process

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Detached is a process of our own program that outlives us: in a session of its own, and a child of init. Patroni kills a hook with
// all its children, in whatever session, and finds them by their parents (psutil, 3.0.3 to 4.1).
type Detached struct {
	PID   int
	Stdin *os.File // closing it says that nothing more is to come
}

const (
	// startTimeout is how long a detached process may take until it says that it is ready. It takes 30 ms, and on a machine with twenty
	// processes for each processor a second.
	startTimeout = 2 * time.Second
	// detachCommand makes the program start what follows as a process of its own, and end.
	detachCommand = "_detach"
)

// StartDetached starts one: self is the path of this program and the flags that come first, args is what follows. It writes the greeting
// to the process's standard input and blocks until the process has said on its standard output that it is ready ([SayReady]), about 20
// ms, 2 s at most. The process has no other file of ours, nor of whoever started us: a lock or a pipe that a caller left open would stay
// with it. Its log goes where ours goes when quiet is false; a person's shell must not wait for it, so there it is quiet and the journal
// tells.
func StartDetached(self []string, quiet bool, greeting string, args ...string) (*Detached, error) {
	// The program in between ends at once, and init inherits what it has started.
	return start(self, quiet, greeting, args, func(theirs *exec.Cmd) error {
		theirs.Args = slices.Insert(theirs.Args, 1, detachCommand)
		return theirs.Run()
	})
}

// StartOwn is [StartDetached] with one start of a program less, on two busy cores 0.1 s: the process is our child and becomes init's when
// we end. So Patroni, which kills a callback and its children when it runs the next one, may still end it while it starts.
func StartOwn(self []string, quiet bool, greeting string, args ...string) (*Detached, error) {
	return start(self, quiet, greeting, args, func(theirs *exec.Cmd) error {
		if err := closeOnExec(); err != nil {
			return err
		}
		theirs.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := theirs.Start(); err != nil {
			return err
		}
		go func() { _ = theirs.Wait() }() // in a process that lives longer than it
		return nil
	})
}

func start(self []string, quiet bool, greeting string, args []string, run func(*exec.Cmd) error) (*Detached, error) {
	if len(self) == 0 {
		return nil, errors.New("the path of the running program is not known")
	}
	fail := func(err error) (*Detached, error) {
		return nil, fmt.Errorf("start %s: %w", strings.Join(args, " "), err)
	}
	theirIn, stdin, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	defer theirIn.Close()
	stdout, theirOut, err := os.Pipe()
	if err != nil {
		_ = stdin.Close()
		return fail(err)
	}
	defer stdout.Close()
	theirs := exec.Command(self[0], slices.Concat(self[1:], args)...)
	theirs.Stdin, theirs.Stdout, theirs.Dir = theirIn, theirOut, "/"
	if !quiet {
		theirs.Stderr = os.Stderr
	}
	err = run(theirs)
	_ = theirOut.Close()
	if err != nil {
		_ = stdin.Close()
		return fail(err)
	}
	d := &Detached{Stdin: stdin}
	_, err = io.WriteString(stdin, greeting)
	if err == nil {
		_ = stdout.SetReadDeadline(time.Now().Add(startTimeout))
		d.PID, err = readReady(stdout)
	}
	if err != nil {
		_ = stdin.Close() // which ends it
		return fail(fmt.Errorf("it did not become ready: %w", err))
	}
	return d, nil
}

const readyLine = "ready %d\n"

// SayReady is for the process that was started: it tells whoever started it that it is ready, and its process id.
func SayReady(to io.Writer) error {
	_, err := fmt.Fprintf(to, readyLine, os.Getpid())
	return err
}

func readReady(from io.Reader) (pid int, err error) {
	line, err := bufio.NewReader(from).ReadString('\n')
	if err == nil {
		_, err = fmt.Sscanf(line, readyLine, &pid)
	}
	return pid, err
}

// Detach is the program in between: called as PROGRAM _detach ARGS… it starts PROGRAM ARGS… with its own standard files in a session of
// its own, and returns the exit code. It reports false when it was not called so.
func Detach(argv []string) (code int, ok bool) {
	if len(argv) < 2 || argv[1] != detachCommand {
		return 0, false
	}
	err := closeOnExec()
	var program string
	if err == nil {
		program, err = os.Executable()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgbaton:", err)
		return 1, true
	}
	cmd := exec.Command(program, argv[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "pgbaton:", err)
		return 1, true
	}
	return 0, true
}

// closeOnExec has every file but the standard ones closed in the programs that this one starts. Package os opens files so; those that we
// were given by whoever started us are not.
func closeOnExec() error {
	err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC) // Linux 5.11
	if err == nil {
		return nil
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, f := range files {
		if fd, err := strconv.Atoi(f.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
