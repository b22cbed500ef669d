package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/reload"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/configversion"
)

type reloadCmd struct {
	Target        string  `arg:"" optional:"" enum:"postgres,pgbouncer,all" default:"all" help:"What to reload: ${enum}."`
	ConfigVersion *string `help:"Wait until the configuration has this version or a newer one." placeholder:"N"`
	Timeout       string  `help:"The longest wait for the version and for the end of a handover; default 2m." placeholder:"2m"`
	Output        string  `help:"Format of the report: ${enum}." enum:"table,json" default:"table"`
	DryRun        bool    `help:"Check, and print what would be done."`
}

func (c *reloadCmd) Run(p *program) error {
	o := reload.Options{Target: c.Target}
	var err error
	if o.Timeout, err = duration("--timeout", c.Timeout); err != nil {
		return err
	}
	if c.ConfigVersion != nil {
		if o.Version, err = configVersion(*c.ConfigVersion); err != nil {
			return err
		}
	}
	m, err := p.runtime(c.DryRun)
	if err != nil {
		return err
	}
	r := reload.Run(p.ctx, m, o)
	p.code = r.Code
	if c.Output == "json" {
		return p.printJSON(struct {
			Code     int    `json:"code"`
			Decision string `json:"decision"`
			reload.Report
		}{r.Code, r.Decision, r}, true)
	}
	p.page().reload(r)
	p.decision(r.Code, r.Decision)
	return nil
}

// configVersion is the one asked for. What was typed is shown, which the error of a version elsewhere does not do.
func configVersion(text string) (*configversion.Version, error) {
	const flag = "--config-version"
	if strings.TrimSpace(text) == "" { // a variable that is not set: waiting for nothing would look like success
		return nil, &config.Error{Name: flag, Problem: flag + " is empty"}
	}
	version, err := configversion.Parse(text)
	if _, ok := errors.AsType[*configversion.SyntaxError](err); ok {
		err = &configversion.SyntaxError{Text: fmt.Sprintf("%+.40q", text)}
	}
	if err != nil {
		return nil, &config.Error{Name: flag, Problem: err.Error(), Err: err}
	}
	return &version, nil
}

// decision is the last line of a report: on stderr where what was asked for was not done.
func (p *program) decision(code int, text string) {
	switch {
	case code != member.Done:
		fmt.Fprintln(p.stderr, "pgbaton:", oneLine(text))
	case text != "":
		p.page().line("", "", text)
	}
}

func (p *page) reload(r reload.Report) {
	var rows [][]cell
	row := func(target, done, how string, verified bool, why, problem string) {
		said := cell{yesNo(verified, why), green}
		if !verified {
			said.colour = yellow
		}
		rows = append(rows, []cell{{text: target}, {text: done}, {text: how}, said, bad(problem)})
	}
	if s := r.Postgres; s != nil {
		row("postgres", s.Done, s.How, s.Verified, "", s.Error)
	}
	for _, x := range r.Poolers {
		row(x.Pooler, x.Done, x.How, x.Verified, x.NotVerified, x.Error)
	}
	if len(rows) > 0 {
		p.table([]string{"TARGET", "DONE", "BY", "VERIFIED", "ERROR"}, rows)
	}
	for _, v := range r.Versions {
		p.line("", "", versionLine(v))
	}
	if s := r.Postgres; s != nil {
		for _, e := range s.FileErrors {
			p.line(red, "postgres: error in ", e.String())
		}
		for _, x := range s.PendingRestart {
			p.line(yellow, "postgres: needs a restart: ", fmt.Sprintf("%s is %q and will be %q", x.Name, x.Running, x.File))
		}
	}
	for _, x := range r.Poolers {
		for _, d := range x.Changed {
			p.line("", "", fmt.Sprintf("%s: %s: %q → %q", x.Pooler, d.Key, d.Running, d.Want))
		}
		for _, d := range x.NotApplied {
			p.line(red, oneLine(x.Pooler)+": not applied: ", d.String())
		}
		for _, d := range x.NeedsRestart {
			p.line(yellow, oneLine(x.Pooler)+": needs a restart: ", d.String())
		}
	}
}

// versionLine says where a version stands, for status and reload.
func versionLine(v api.VersionReport) string {
	line := v.Target + ": " + versionText(v.Seen) + " (" + v.Source + ")"
	if v.OnDisk != nil {
		line += ", on disk " + versionText(v.OnDisk)
	}
	if v.Applied != nil {
		line += ", applied " + versionText(v.Applied)
	}
	if v.Error != "" {
		line += ": " + v.Error
	}
	return oneLine(line)
}

func versionText(v *configversion.Version) string {
	if v == nil {
		return "not there"
	}
	return fmt.Sprint(uint64(*v))
}

func yesNo(yes bool, why string) string {
	switch {
	case yes:
		return "yes"
	case why != "":
		return "no: " + oneLine(why)
	}
	return "no"
}
