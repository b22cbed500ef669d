// Command demo shows pgbaton at work: it makes a real cluster on this machine, puts load through
// PgBouncer, moves the primary and restarts it, does the same switchover with the runbook's scripts, and
// leaves a report with a plot.
//
//	go run -C e2e/demo . [-suite trixie|sid] [-out DIR]
//	go run -C e2e/demo . down
//	go run -C e2e/demo . bench DIR
//	go run -C e2e/demo . dashboard FILE
//	go run -C e2e/demo . [-out DIR] kube FILE
//
// The second form removes from the machine what the first has put there. The third makes one table of the reports in the folders of DIR.
// The fourth makes a picture of Grafana's dashboard during a switchover. The fifth makes the report of what make demo-kube has seen.
//
// It is a module of its own: the plot library is not a dependency of pgbaton.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// A second Ctrl-C ends at once; the kernel then ends the servers, and the next start removes their files.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout))
}

// Exit codes. Behind "go run" and make, everything but 0 becomes their own.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// suites are what scripts/lab-root.sh can make.
var suites = []string{"trixie", "sid"}

func run(ctx context.Context, args []string, out io.Writer) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Usage = func() {
		fmt.Fprint(
			out,
			"Usage: demo [-suite trixie|sid] [-out DIR]   run the demo\n       demo down                               remove what it has put on this machine, except the report\n       demo bench DIR                          make one table of the reports in the folders of DIR\n       demo dashboard FILE                     make a picture of the dashboard's panels during a switchover\n       demo [-out DIR] kube FILE               make the report of what make demo-kube has seen\n\n",
		)
		flags.PrintDefaults()
	}
	var d demo
	flags.StringVar(&d.suite, "suite", "trixie", "Debian suite whose programs are used: "+strings.Join(suites, " or "))
	flags.StringVar(&d.out, "out", "", "`DIR` for the report (default "+reportDir+" in the repository)")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return exitUsage
	}
	if flags.NArg() == 2 && flags.Arg(0) == "bench" {
		if err := bench(flags.Arg(1), out); err != nil {
			return failed(out, err)
		}
		return 0
	}
	if flags.NArg() == 2 && flags.Arg(0) == "kube" {
		if err := kubeReport(flags.Arg(1), d.out, out); err != nil {
			return failed(out, err)
		}
		return 0
	}
	var picture string
	if flags.NArg() == 2 && flags.Arg(0) == "dashboard" {
		picture = flags.Arg(1)
	}
	down := flags.NArg() == 1 && flags.Arg(0) == "down"
	if flags.NArg() > 0 && !down && picture == "" || !slices.Contains(suites, d.suite) {
		flags.Usage()
		return exitUsage
	}
	d.screen = newScreen(out)
	var err error
	switch {
	case down:
		err = takeDown(ctx, labDir(), d.screen)
	case picture != "":
		err = d.picture(ctx, picture)
	default:
		err = d.run(ctx)
	}
	d.screen.close()
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil && down:
		fmt.Fprintln(out, "\nInterrupted: there may be something left. Run make demo-down again.")
		return exitInterrupted
	case ctx.Err() != nil && d.leftBehind == nil:
		fmt.Fprintln(out, "\nInterrupted. All servers are stopped and their files removed; there is no report.")
		return exitInterrupted
	}
	return failed(out, err)
}

func failed(out io.Writer, err error) int {
	fmt.Fprintf(out, "\npgbaton demo: %v\n", err)
	if p, ok := errors.AsType[*problem](err); ok {
		fmt.Fprintf(out, "What to do: %s\n", p.remedy)
	}
	return exitFailed
}

// problem is an error that says what a person can do about it.
type problem struct {
	what   string
	remedy string
}

func (p *problem) Error() string { return p.what }
