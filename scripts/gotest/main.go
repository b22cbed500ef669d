// Gotest runs "go test" and keeps how long each test took, so that the slowest of several runs can be listed together.
//
//	gotest -times FILE -- [arguments of go test]    prints what go test would and adds to FILE
//	gotest -times FILE -slowest 20                  lists the slowest tests in FILE, of all packages
//
// It ends as go test does: with its exit code.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
)

// event is a line of "go test -json" (go doc test2json); FILE has those that end a test.
type event struct {
	Action  string
	Package string
	Test    string  `json:",omitempty"`
	Elapsed float64 `json:",omitempty"` // seconds, without those that a parallel test waits for its turn
	Output  string  `json:",omitempty"`
}

func (e event) name() string { return e.Package + " " + e.Test }

// ends tells whether a test is over with this event.
func (e event) ends() bool {
	return e.Test != "" && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip")
}

func main() {
	times := flag.String("times", "", "`file` that keeps how long each test took")
	top := flag.Int("slowest", 0, "list so many of the slowest in that file, and run nothing")
	flag.Parse()
	code, err := 0, error(nil)
	if *top > 0 {
		err = list(*times, *top, os.Stdout)
	} else {
		code, err = test(*times, flag.Args())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// test runs go test to its end and returns its exit code. With -v it prints what every test says, without only what failed ones do.
func test(times string, args []string) (code int, err error) {
	file, err := os.OpenFile(times, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	// A test's servers die with it, and it with us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	err = relay(out, os.Stdout, json.NewEncoder(file), slices.Contains(args, "-v"))
	err = errors.Join(err, cmd.Wait())
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// relay prints events as go test would have without -json, and keeps those that end a test. What failed tests said is last: with -v it
// is said once more there, where who reads only the end of a long log finds it.
func relay(events io.Reader, to io.Writer, keep *json.Encoder, verbose bool) error {
	said := map[string]*strings.Builder{} // of tests that may still fail
	var again strings.Builder
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			if verbose && again.Len() > 0 {
				fmt.Fprintf(to, "What failed said:\n%s", &again)
			}
			return nil
		}
		if err != nil {
			return err
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			fmt.Fprintf(to, "%s", line) // not an event: what go itself says
			continue
		}
		if verbose || e.Test == "" {
			if verbose || e.Output != "PASS\n" {
				fmt.Fprint(to, e.Output)
			}
		}
		switch {
		case e.Test == "", strings.HasPrefix(e.Output, "=== "): // RUN, PAUSE, CONT, NAME: only with -v
		case e.Output != "":
			if said[e.name()] == nil {
				said[e.name()] = &strings.Builder{}
			}
			said[e.name()].WriteString(e.Output)
		case e.ends():
			if words := said[e.name()]; e.Action == "fail" && words != nil {
				if verbose {
					again.WriteString(words.String())
				} else {
					fmt.Fprint(to, words)
				}
			}
			delete(said, e.name())
			if err := keep.Encode(e); err != nil {
				return err
			}
		}
	}
}

// list prints the slowest tests in a file. A test that is made of others is not one of them.
func list(times string, top int, to io.Writer) error {
	file, err := os.Open(times)
	if err != nil {
		return err
	}
	defer file.Close()
	var all []event
	parents := map[string]bool{}
	for decoder := json.NewDecoder(file); ; {
		var e event
		if err := decoder.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("%s: %w", times, err)
		}
		all = append(all, e)
		for name := e.name(); strings.Contains(name, "/"); {
			name = name[:strings.LastIndex(name, "/")]
			parents[name] = true
		}
	}
	all = slices.DeleteFunc(all, func(e event) bool { return parents[e.name()] })
	slices.SortStableFunc(all, func(a, b event) int { return cmp.Compare(b.Elapsed, a.Elapsed) })
	fmt.Fprintf(to, "The slowest of %d tests:\n", len(all))
	for _, e := range all[:min(top, len(all))] {
		fmt.Fprintf(to, "%7.1f s  %-4s  %s\n", e.Elapsed, e.Action, e.name())
	}
	return nil
}
