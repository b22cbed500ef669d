// Command pgbaton does planned maintenance of Patroni clusters behind PgBouncer without an error
// for any client. Patroni calls it as before_stop and as callback; people call it by hand.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/process"

	"github.com/alecthomas/kong"

	"github.com/pgbaton/pgbaton/config"
)

func main() {
	if code, ok := process.Detach(os.Args); ok {
		os.Exit(code)
	}
	os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// program is what every subcommand's Run gets.
type program struct {
	ctx    context.Context
	cli    *cli
	args   *kong.Context
	argv0  string
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	code   int // exit code of a command that ran to its end

	unblocked *unblocked      // in front of stderr, where nobody may be reading
	stopped   <-chan struct{} // closed with the first signal, of commands that go on until the second
	diverted  *diversion      // in front of stderr, which may lead to the terminal that a list is drawn on
}

// flush is for the end.
func (p *program) flush() {
	if p.unblocked != nil {
		p.unblocked.flush()
	}
}

type cli struct {
	common

	BeforeStop   beforeStopCmd   `cmd:"" name:"before_stop" aliases:"before-stop" help:"Guard a stop of PostgreSQL: pause the poolers (Patroni's postgresql.before_stop)."`
	OnRoleChange onRoleChangeCmd `cmd:"" name:"on_role_change" aliases:"on-role-change" help:"Resume the poolers after a promotion or restart (Patroni's callbacks)."`
	Reload       reloadCmd       `cmd:"" help:"Reload PostgreSQL and the poolers, and verify that it was applied."`
	Pause        pauseCmd        `cmd:"" help:"Pause the poolers by hand, until the lease ends."`
	Resume       resumeCmd       `cmd:"" help:"Resume the poolers by hand."`
	Status       statusCmd       `cmd:"" help:"Show member, role, lock, poolers and the last handover."`
	Check        checkCmd        `cmd:"" help:"Find everything that would spoil a handover, and say what to change."`
	Switchover   switchoverCmd   `cmd:"" help:"Hand the primary over to another member, and look whether that is so."`
	Restart      restartCmd      `cmd:"" help:"Restart members one after the other, in the order that their roles and pending changes ask for."`
	Serve        serveCmd        `cmd:"" help:"Serve the HTTP mode: an API for operators, and metrics."`
	Init         initCmd         `cmd:"" help:"Write the configuration file from what Patroni, the poolers and their files say."`
	Install      installCmd      `cmd:"" help:"Copy this program into a directory, and make its links."`
	Completion   completionCmd   `cmd:"" help:"Print the script that makes a shell complete commands, flags and values."`
	Version      versionCmd      `cmd:"" help:"Show the version."`
	Pages        pagesCmd        `cmd:"" name:"_pages" hidden:""`
	Keep         keepCmd         `cmd:"" name:"_keep" hidden:""`
	Work         workCmd         `cmd:"" name:"_work" hidden:""`
	Orphan       orphanCmd       `cmd:"" name:"_orphan" hidden:""`
}

// options are how the parser shows itself.
func options() []kong.Option {
	return []kong.Option{
		kong.Name("pgbaton"),
		kong.Description(
			"Planned maintenance of Patroni clusters behind PgBouncer, without an error for any client.\n\n" +
				"Exit codes: 0 done or nothing to do, 1 failed, 2 usage or configuration, 3 budget spent, 4 refused.",
		),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.ExplicitGroups([]kong.Group{{Key: configGroup, Title: "Configuration (over the variable in brackets, over the file):"}}),
	}
}

func run(argv []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &cli{}
	parser, err := kong.New(c, append(options(), kong.Writers(stdout, stderr))...)
	if err != nil {
		fmt.Fprintln(stderr, "pgbaton:", err)
		return member.Failed
	}
	// An empty variable counts as not set, here as in package config.
	for _, name := range []string{"PGBATON_LOG_FORMAT", "PGBATON_LOG_LEVEL"} {
		if os.Getenv(name) == "" {
			_ = os.Unsetenv(name)
		}
	}
	args, err := parser.Parse(linkArgs(argv))
	if err != nil {
		fmt.Fprintf(stderr, "pgbaton: %s\nTry %q.\n", withoutSecrets(namedBySource(err.Error(), argv)), helpCommand(err))
		return member.Invalid
	}
	p := &program{cli: c, args: args, argv0: argv[0], stdin: stdin, stdout: stdout, stderr: stderr}
	var stop context.CancelFunc
	if name := args.Selected().Name; name == "switchover" || name == "restart" {
		p.ctx, p.stopped, stop = untilSecondSignal()
	} else {
		p.ctx, stop = untilSignal()
	}
	defer stop()
	defer p.flush()
	if err := args.Run(p); err != nil {
		code := member.Failed
		if config.IsInvalid(err) {
			code = member.Invalid
		}
		if logged := (told{}); errors.As(err, &logged) {
			return code
		}
		if c.LogFormat == "json" {
			p.log().Error(args.Selected().Name+" ends", "hook", args.Selected().Name, "error", err, "code", code)
		} else {
			fmt.Fprintln(p.stderr, "pgbaton:", oneLine(err.Error()))
		}
		return code
	}
	return p.code
}

// untilSignal is a context that ends with the first SIGTERM or SIGINT. When it has ended, the default action is back: a second signal ends
// the process, whatever it waits for.
func untilSignal() (_ context.Context, stop context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		select {
		case <-signals:
		case <-ctx.Done():
		}
		signal.Stop(signals)
		cancel()
		select {
		case second := <-signals: // it came before the default action was back
			if s, ok := second.(syscall.Signal); ok {
				_ = syscall.Kill(os.Getpid(), s)
			}
		default:
		}
	}()
	return ctx, cancel
}

// namedBySource: the parser names the flag also where the value came from its variable.
func namedBySource(message string, argv []string) string {
	for _, name := range []string{"LOG_FORMAT", "LOG_LEVEL"} {
		flag := "--" + strings.ToLower(strings.ReplaceAll(name, "_", "-"))
		given := slices.ContainsFunc(argv, func(a string) bool { return strings.HasPrefix(a, flag) })
		if rest, ok := strings.CutPrefix(message, flag+" must be"); ok && !given {
			return "PGBATON_" + name + " must be" + rest
		}
	}
	return message
}

// linkArgs is the arguments with the subcommand that a link's name stands for.
func linkArgs(argv []string) []string {
	if len(argv) == 0 {
		return nil
	}
	name, args := strings.ReplaceAll(filepath.Base(argv[0]), "-", "_"), argv[1:]
	if !slices.Contains(linkNames(), name) {
		return args
	}
	// A copy instead of a link is called by this name when it starts itself again, too.
	if slices.Contains(args, "_keep") || slices.Contains(args, "_work") || slices.Contains(args, "_orphan") {
		return args
	}
	return append([]string{name}, args...)
}

func linkNames() []string { return []string{"before_stop", "on_role_change", "reload"} }

// withoutSecrets: the parser repeats an argument that it did not expect, and that may be a
// connection string behind a mistyped flag. Nobody knows where a password in it ends.
func withoutSecrets(message string) string {
	for _, before := range []string{"unexpected argument ", "unknown flag "} {
		rest, ok := strings.CutPrefix(message, before)
		if !ok {
			continue
		}
		if word, _, _ := strings.Cut(rest, ", did you mean"); strings.ContainsAny(word, " \t\n=:@/") {
			return before + "***"
		}
		return message
	}
	return regexp.MustCompile(`(?is)\S*(://|pass\w*\s*=|@).*`).ReplaceAllString(message, "***")
}

func helpCommand(err error) string {
	var at *kong.ParseError
	if errors.As(err, &at) && at.Context != nil {
		if node := at.Context.Selected(); node != nil {
			return "pgbaton " + node.Name + " --help"
		}
	}
	return "pgbaton --help"
}
