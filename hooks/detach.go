package hooks

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// detached is a process of our own program that outlives us: in a session of its own, and handed to init when we end.
type detached struct {
	pid   int
	stdin io.WriteCloser
}

// startTimeout is how long a detached process may take until it says that it is ready. It takes 20 ms.
const startTimeout = time.Second

// startDetached starts one and blocks until it has written a line to its standard output. Its log goes where ours goes
// when quiet is false; a person's shell must not wait for it, so there it is quiet and the journal tells.
func (rt *Runtime) startDetached(quiet bool, greeting string, args ...string) (*detached, error) {
	if len(rt.Self) == 0 {
		return nil, errors.New("own program not known")
	}
	argv := append(append([]string{}, rt.Self[1:]...), args...)
	cmd := exec.Command(rt.Self[0], argv...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if !quiet {
		cmd.Stderr = os.Stderr
	}
	cmd.Dir = "/"
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	ours, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	cmd.Stdout = theirs
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", strings.Join(args, " "), err)
	}
	// It is reaped while we live (a test, serve); afterwards by init.
	go func() { _ = cmd.Wait() }()
	d := &detached{pid: cmd.Process.Pid, stdin: stdin}
	if _, err := io.WriteString(stdin, greeting); err != nil {
		return nil, fmt.Errorf("start %s: %w", strings.Join(args, " "), err)
	}
	_ = ours.SetReadDeadline(time.Now().Add(startTimeout))
	if _, err := bufio.NewReader(ours).ReadString('\n'); err != nil {
		_ = cmd.Process.Kill()
		return nil, fmt.Errorf("%s did not get ready: %w", strings.Join(args, " "), err)
	}
	return d, nil
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
