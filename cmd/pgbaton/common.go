package main

import (
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"

	"github.com/pgbaton/pgbaton/config"
)

const configGroup = "configuration"

// common are the flags of every subcommand. The flags that name a key of the file are text here:
// package config reads all sources alike, and so finds the same words for what is wrong.
type common struct {
	Config    string `help:"Configuration file." placeholder:"FILE" complete:"file" env:"PGBATON_CONFIG"`
	LogFormat string `help:"Format of the log on stderr: ${enum}." enum:"text,json" default:"text" env:"PGBATON_LOG_FORMAT"`
	LogLevel  string `help:"Lowest level that is logged: ${enum}." enum:"debug,info,warn,error" default:"info" env:"PGBATON_LOG_LEVEL"`

	PatroniURL          string   `name:"patroni-url" key:"patroni.url" group:"configuration" help:"This member's REST API." placeholder:"URL" env:"PGBATON_PATRONI_URL"`
	Postgres            string   `key:"postgres" group:"configuration" help:"This member's server." placeholder:"DSN" env:"PGBATON_POSTGRES"`
	Pooler              []string `key:"pooler" group:"configuration" sep:"none" help:"Admin console of a PgBouncer; may be repeated." placeholder:"DSN" env:"PGBATON_POOLER"`
	StateDir            string   `key:"state_dir" group:"configuration" help:"Directory for leases and the journal." placeholder:"DIR" complete:"dir" env:"PGBATON_STATE_DIR"`
	PauseBudget         string   `key:"pause.budget" group:"configuration" help:"The longest that a stop is delayed." placeholder:"15s" env:"PGBATON_PAUSE_BUDGET"`
	PauseAttempt        string   `key:"pause.attempt" group:"configuration" help:"The longest that one PAUSE may take." placeholder:"2s" env:"PGBATON_PAUSE_ATTEMPT"`
	PauseOnTimeout      string   `key:"pause.on_timeout" group:"configuration" help:"What to do when the budget is spent: hold, terminate, skip or wait." placeholder:"hold" complete:"hold|terminate|skip|wait" env:"PGBATON_PAUSE_ON_TIMEOUT"`
	PauseLease          string   `key:"pause.lease" group:"configuration" help:"The longest that a pause lasts." placeholder:"30s" env:"PGBATON_PAUSE_LEASE"`
	PauseShutdownBudget string   `key:"pause.shutdown_budget" group:"configuration" help:"The budget while Patroni does not answer." placeholder:"5s" env:"PGBATON_PAUSE_SHUTDOWN_BUDGET"`
	PauseStopServer     string   `key:"pause.stop_server" group:"configuration" help:"Whether the guard stops the drained server itself: auto or off." placeholder:"auto" complete:"auto|off" env:"PGBATON_PAUSE_STOP_SERVER"`
	ResumeRoute         string   `key:"resume.route" group:"configuration" help:"The address at which the poolers reach the primary." placeholder:"DSN" env:"PGBATON_RESUME_ROUTE"`
	ResumeTimeout       string   `key:"resume.timeout" group:"configuration" help:"The longest wait for server and route." placeholder:"60s" env:"PGBATON_RESUME_TIMEOUT"`
}

// settings are the flags that were given. (What the parser took from the environment is not
// among them: package config reads the environment itself, and names the variable in an error.)
func (p *program) settings() []config.Setting {
	var set []config.Setting
	for _, step := range p.args.Path {
		if step.Flag == nil || step.Resolved || step.Flag.Tag.Get("key") == "" {
			continue
		}
		key := step.Flag.Tag.Get("key")
		source := "--" + step.Flag.Name
		if key == "pooler" {
			continue // below: each step has the whole list
		}
		set = append(set, config.Setting{Key: key, Value: step.Flag.Target.String(), Source: source})
	}
	if p.given("pooler") {
		for _, dsn := range p.cli.Pooler {
			set = append(set, config.Setting{Key: "pooler", Value: dsn, Source: "--pooler"})
		}
	}
	return set
}

func (p *program) given(flag string) bool {
	for _, step := range p.args.Path {
		if step.Flag != nil && !step.Resolved && step.Flag.Name == flag {
			return true
		}
	}
	return false
}

// options are where the configuration comes from.
func (p *program) options() config.Options {
	options := config.Options{Set: p.settings(), Argv0: p.argv0, PatroniEnv: patroniEnv()}
	if p.given("config") {
		options.File = p.cli.Config
	}
	return options
}

// patroniEnv looks into the environment of the Patroni process, once and when it is first asked. What it finds becomes part of our own
// environment: a worker has no Patroni above it any more, and patronictl reads the same variables.
func patroniEnv() func(name, patroniConfig string) (string, bool) {
	asked := false
	return func(name, patroniConfig string) (string, bool) {
		if !asked {
			asked = true
			for name, v := range patroni.Environ(patroniConfig) {
				if _, ok := os.LookupEnv(name); !ok {
					_ = os.Setenv(name, v)
				}
			}
		}
		return os.LookupEnv(name)
	}
}

// runtime loads the configuration for a hook. The error is the configuration's. Without a state directory everything but serve works:
// that somebody else has made /tmp/pgbaton-UID must not turn the guard off. It is logged.
func (p *program) runtime(dryRun bool) (*member.Member, error) {
	options := p.options()
	options.LookOnly = dryRun
	m, noStateDir, err := p.runtimeOf(options, dryRun)
	if noStateDir != nil && !p.args.Selected().Hidden { // who has started it has told it
		m.Log.Error("going on without a state directory, so nobody takes up the lease of a keeper that is killed", "error", noStateDir)
	}
	return m, err
}

// runtimeOf does the same with other options. Where nothing is wrong but the state directory it returns that apart.
func (p *program) runtimeOf(options config.Options, dryRun bool) (m *member.Member, noStateDir, err error) {
	c, err := config.Load(options)
	log := p.log()
	if !p.args.Selected().Hidden { // who has started it has told them
		for _, w := range c.Warnings {
			log.Warn("configuration: " + w.Error())
		}
	}
	if config.IsStateDir(err) {
		noStateDir, err = err, nil
	}
	if err != nil {
		if hook := p.args.Selected().Name; withoutConfig(hook) != "" {
			tellUnconfigured(log, c.StateDir, hook, err, dryRun)
			err = told{err}
		}
		return nil, nil, err
	}
	return &member.Member{Config: c, Log: log, DryRun: dryRun, Self: p.self(c, options.Set)}, noStateDir, nil
}

// hookRuntime is runtime for what Patroni starts: a log that nobody reads any more must not end
// it, as a write to a closed stderr would.
func (p *program) hookRuntime(dryRun bool) (*member.Member, error) {
	signal.Ignore(syscall.SIGPIPE)
	if p.unblocked == nil {
		p.unblocked = newUnblocked(p.stderr)
		p.stderr = p.unblocked
	}
	return p.runtime(dryRun)
}

// looker is runtime for what changes nothing: it goes without a state directory that cannot be used, which is then part of what it shows.
func (p *program) looker() (*member.Member, error) {
	options := p.options()
	options.LookOnly = true
	m, noStateDir, err := p.runtimeOf(options, false)
	if err != nil {
		return nil, err
	}
	m.Recheck = func() error { return noStateDir }
	return m, nil
}

// self starts this program again with the same configuration, from another working directory.
func (p *program) self(c *config.Config, set []config.Setting) []string {
	path, err := os.Executable()
	if err != nil {
		return nil
	}
	self := []string{path, "--log-format=" + p.cli.LogFormat, "--log-level=" + p.cli.LogLevel}
	if c.File != "" {
		if file, err := filepath.Abs(c.File); err == nil {
			self = append(self, "--config="+file)
		}
	}
	for _, s := range set {
		if s.Source == listenFlag {
			continue
		}
		self = append(self, s.Source+"="+s.Value)
	}
	return self
}

func (p *program) log() *slog.Logger {
	var level slog.Level
	// The parser lets only the four names through.
	_ = level.UnmarshalText([]byte(strings.ToUpper(p.cli.LogLevel)))
	options := &slog.HandlerOptions{Level: level}
	if p.cli.LogFormat == "json" {
		// A number needs its unit: slog's own is a count of nanoseconds.
		options.ReplaceAttr = func(_ []string, a slog.Attr) slog.Attr {
			if a.Value.Kind() == slog.KindDuration {
				a.Value = slog.StringValue(a.Value.Duration().String())
			}
			return a
		}
		return slog.New(slog.NewJSONHandler(p.stderr, options))
	}
	return slog.New(slog.NewTextHandler(p.stderr, options))
}
