package hooks

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// detached is a process of our own program that outlives us: in a session of its own, and a child of init. Patroni kills a hook with
// all its children, in whatever session, and finds them by their parents (psutil, 3.0.3 to 4.1).
type detached struct {
	pid   int
	stdin *os.File
}

const (
	// startTimeout is how long a detached process may take until it says that it is ready. It takes 30 ms.
	startTimeout = time.Second
	// detachCommand makes the program start what follows as a process of its own, and end.
	detachCommand = "_detach"
)

// startDetached starts one and blocks until it has said on its standard output that it is ready. Its log goes where ours goes when
// quiet is false; a person's shell must not wait for it, so there it is quiet and the journal tells.
func (rt *Runtime) startDetached(quiet bool, greeting string, args ...string) (*detached, error) {
	if len(rt.Self) == 0 {
		return nil, errors.New("own program not known")
	}
	fail := func(err error) (*detached, error) {
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
	// The program in between ends at once, and init inherits what it has started.
	between := exec.Command(rt.Self[0], slices.Concat([]string{detachCommand}, rt.Self[1:], args)...)
	between.Stdin, between.Stdout, between.Dir = theirIn, theirOut, "/"
	if !quiet {
		between.Stderr = os.Stderr
	}
	err = between.Run()
	_ = theirOut.Close()
	if err != nil {
		_ = stdin.Close()
		return fail(err)
	}
	d := &detached{stdin: stdin}
	_, err = io.WriteString(stdin, greeting)
	if err == nil {
		_ = stdout.SetReadDeadline(time.Now().Add(startTimeout))
		d.pid, err = readReady(stdout)
	}
	if err != nil {
		_ = stdin.Close() // which ends it
		return fail(fmt.Errorf("it did not get ready: %w", err))
	}
	return d, nil
}

const readyLine = "ready %d\n"

func sayReady(to io.Writer) error {
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

// Detach is the program in between: called as PROGRAM _detach ARGS… it starts PROGRAM ARGS… with its own standard files in a session of its
// own, and returns the exit code. It reports false when it was not called so.
func Detach(argv []string) (code int, ok bool) {
	if len(argv) < 2 || argv[1] != detachCommand {
		return 0, false
	}
	program, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgbaton:", err)
		return Failed, true
	}
	cmd := exec.Command(program, argv[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "pgbaton:", err)
		return Failed, true
	}
	return Done, true
}

// calledByPatroni reports whether Patroni is an ancestor of this process, through shells or not. Where the REST API does
// not answer, this tells a stop by Patroni from a person who tries the guard by hand.
func calledByPatroni() bool {
	pid := os.Getppid()
	for range 8 {
		if pid < 1 {
			return false
		}
		cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if err != nil {
			return false
		}
		if isPatroni(strings.Split(string(cmdline), "\x00")) {
			return true
		}
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			return false
		}
		// The name stands in parentheses and may hold anything; state and parent follow the last one.
		_, rest, ok := cutLast(string(stat), ") ")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 2 {
			return false
		}
		if pid, err = strconv.Atoi(fields[1]); err != nil {
			return false
		}
	}
	return false
}

// isPatroni knows "python3 /usr/bin/patroni FILE", "python3 -m patroni FILE", "/opt/…/patroni FILE" and "patroni.py"
// (Debian, Spilo, StackGres).
func isPatroni(argv []string) bool {
	for i, arg := range argv {
		base := arg[strings.LastIndexByte(arg, '/')+1:]
		switch {
		case i > 3:
			return false
		case base == "patroni" || base == "patroni.py":
			return true
		case i == 0 && !strings.HasPrefix(base, "python"):
			return false // "sudo -u patroni bash", "tail -f /var/log/patroni"
		}
	}
	return false
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
