package patroni

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	ctlOutputLimit = 16 << 10 // bytes of patronictl's output that are kept
	ctlWaitDelay   = time.Second
)

// ErrNoCtl says that patronictl cannot be used here: it is not in PATH, or it is not known for which member.
var ErrNoCtl = errors.New("patronictl cannot be used")

// CtlError is a patronictl that ran and did not do it.
type CtlError struct {
	ExitCode int    // 0: it reports its failure in words only; -1: it was ended by a signal, ours or another
	Output   string // what it said, shortened; the words of secrets are taken out
	Err      error  // of the context, or the system
}

func (e *CtlError) Error() string {
	s := "patronictl reload: "
	switch {
	case e.Err != nil:
		s += e.Err.Error()
	case e.ExitCode != 0:
		s += fmt.Sprintf("exit code %d", e.ExitCode)
	default:
		s += "not done"
	}
	if e.Output != "" {
		s += ": " + e.Output
	}
	return s
}

func (e *CtlError) Unwrap() error { return e.Err }

// CtlReload runs `patronictl -c CONFIG reload SCOPE MEMBER --force`, with our environment. patronictl finds the member in the DCS and sends
// the POST /reload of [Client.Reload] itself: it helps where it knows an address, a certificate or credentials that we do not, and not
// where the REST API is down. nil: Patroni has taken the request, and does it up to loop_wait later.
//
// It blocks until patronictl ends (1 to 2 s, longer without a DCS) or ctx is done, which kills it with its children. The error is
// [ErrNoCtl] or a [*CtlError]; secrets are words to keep out of it.
func CtlReload(ctx context.Context, config, scope, member string, secrets ...string) error {
	if config == "" || scope == "" || member == "" {
		return fmt.Errorf(
			"patroni: %w: Patroni's configuration file with the names of cluster and member is not known (patroni.config)",
			ErrNoCtl,
		)
	}
	program, err := exec.LookPath("patronictl")
	if err != nil {
		return fmt.Errorf("patroni: %w: %w", ErrNoCtl, err)
	}
	// Names that begin with a dash would be options; after -- they are not.
	cmd := exec.CommandContext(ctx, program, "-c", config, "reload", "--force", "--", scope, member)
	out := &bounded{limit: ctlOutputLimit}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = ctlWaitDelay
	err = cmd.Run()
	e := &CtlError{Output: lastWords(out.text.Bytes(), secrets...)}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		e.ExitCode, e.Err = -1, ctx.Err()
	case errors.As(err, &exit):
		e.ExitCode = exit.ExitCode()
		if e.ExitCode < 0 {
			e.Err = err // "signal: killed"
		}
	case err != nil:
		e.ExitCode, e.Err = -1, err
	// A refusal of the REST API, such as a 401, is words and exit code 0 (ctl.py, 4.0.7 and 4.1.5).
	case ctlDone().Match(out.text.Bytes()):
		return nil
	}
	return e
}

// lastWords leaves out the table of the members, which stands before the message, and the beginning of a trace.
func lastWords(output []byte, secrets ...string) string {
	var lines []string
	left := errorLimit
	for _, line := range slices.Backward(strings.Split(strings.TrimSpace(string(output)), "\n")) {
		if line = sayable([]byte(line), secrets...); line == "" || line[0] == '|' || line[0] == '+' {
			continue
		}
		if left -= len(line); left < 0 && lines != nil {
			break
		}
		lines = append(lines, line)
	}
	slices.Reverse(lines)
	return strings.Join(lines, " ")
}

// ctlDone is what patronictl says of 202 and of 200.
var ctlDone = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?m)^(Reload request received|No changes to apply on member)`)
})

// bounded keeps the end of what is written: the last line of a Python trace says what happened.
type bounded struct {
	text  bytes.Buffer
	limit int
}

func (b *bounded) Write(p []byte) (int, error) {
	n := len(p)
	b.text.Write(p)
	if over := b.text.Len() - b.limit; over > 0 {
		b.text.Next(over)
	}
	return n, nil
}
