package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pgbaton/pgbaton/health"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/setup"
)

type initCmd struct {
	PatroniConfig   string   `help:"Patroni's own configuration file or directory; looked for where it is not given." placeholder:"PATH" complete:"file"`
	PgbouncerConfig []string `help:"pgbouncer.ini of a PgBouncer on this machine; may be repeated. Default: /etc/pgbouncer/pgbouncer.ini, where it is." sep:"none" placeholder:"FILE" complete:"file"`
	Hooks           string   `help:"Directory of the links that Patroni is to run." placeholder:"DIR" complete:"dir"`
	Check           bool     `help:"Run the check at once."`
	DryRun          bool     `help:"Print the configuration file, and write nothing."`
}

// Help is what pgbaton init --help has below its first line.
func (*initCmd) Help() string {
	return "It writes to --config, else beside the links where they are, else /etc/pgbaton/pgbaton.yaml, and never over a file that is " +
		"there."
}

const (
	systemConfig = "/etc/pgbaton/pgbaton.yaml"
	packageHooks = "/usr/lib/pgbaton"
)

func (c *initCmd) Run(p *program) error {
	hooks, beside := hooksDir(c.Hooks)
	target := systemConfig
	switch {
	case p.cli.Config != "":
		target = p.cli.Config
	case beside:
		target = filepath.Join(hooks, "pgbaton.yaml")
	}
	var err error
	for _, path := range []*string{&target, &c.PatroniConfig, &hooks} {
		if *path != "" {
			if *path, err = filepath.Abs(*path); err != nil {
				return err
			}
		}
	}
	r, err := setup.Run(p.ctx, setup.Options{File: target, DryRun: c.DryRun, Patroni: c.PatroniConfig, PatroniURL: p.cli.PatroniURL,
		Postgres: p.cli.Postgres, PgBouncers: c.PgbouncerConfig, Poolers: p.cli.Pooler, StateDir: p.cli.StateDir, Hooks: hooks,
		UID: patroniUser(), Log: p.log(), LookupEnv: os.LookupEnv, PatroniEnv: patroniEnv()})
	if errors.Is(err, os.ErrExist) {
		return p.refuse("%s is there already, and was left as it is; write to another file with --config FILE, or look with --dry-run",
			target)
	}
	if err != nil {
		return fmt.Errorf("nothing was written: %w", err)
	}
	if c.DryRun {
		_, err := fmt.Fprint(p.stdout, r.Text)
		return err
	}
	p.page().initialised(target, r)
	if !c.Check {
		return nil
	}
	report := health.Check(p.ctx, &member.Member{Config: r.Config, Log: p.log()})
	if !report.OK {
		p.code = member.Refused
	}
	fmt.Fprintln(p.stdout)
	p.page().check(report)
	return nil
}

func (p *page) initialised(target string, r setup.Result) {
	for _, text := range r.Found {
		p.line("", "", text)
	}
	p.line(green, "Written: ", target)
	if r.Patroni != "" {
		p.say("\nFor Patroni's configuration, on every member (then patronictl reload), or with patronictl edit-config:\n", "")
		for line := range strings.Lines(r.Patroni) {
			p.say("  "+strings.TrimSuffix(line, "\n"), "")
		}
	}
	for i, text := range append(r.Todo, "pgbaton check, as Patroni's user: it must find no error") {
		if i == 0 {
			p.say("\nLeft to do:", bold)
		}
		p.line("", "- ", text)
	}
}

// hooksDir is where Patroni finds its links: beside this program, or where packages have them.
func hooksDir(given string) (dir string, beside bool) {
	if given != "" {
		return given, false
	}
	if self, err := os.Executable(); err == nil {
		if _, err := os.Lstat(filepath.Join(filepath.Dir(self), "before_stop")); err == nil {
			return filepath.Dir(self), true
		}
	}
	return packageHooks, false
}

// patroniUser is who runs Patroni: whoever runs this, or postgres where that is root.
func patroniUser() int {
	if os.Geteuid() != 0 {
		return os.Geteuid()
	}
	if u, err := user.Lookup("postgres"); err == nil {
		if id, err := strconv.Atoi(u.Uid); err == nil {
			return id
		}
	}
	return 0
}
