package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

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
		e := json.NewEncoder(p.stdout)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			Code     int    `json:"code"`
			Decision string `json:"decision"`
			reload.Report
		}{r.Code, r.Decision, r})
	}
	return p.reloadTable(r)
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

func (p *program) reloadTable(r reload.Report) error {
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(w, strings.Join(cells, "\t")) }
	if r.Postgres != nil || len(r.Poolers) > 0 {
		row("TARGET", "DONE", "BY", "VERIFIED", "ERROR")
	}
	if s := r.Postgres; s != nil {
		row("postgres", s.Done, s.How, yesNo(s.Verified, ""), oneLine(s.Error))
	}
	for _, x := range r.Poolers {
		row(x.Pooler, x.Done, x.How, yesNo(x.Verified, x.NotVerified), oneLine(x.Error))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, v := range r.Versions {
		fmt.Fprintln(p.stdout, versionLine(v))
	}
	if s := r.Postgres; s != nil {
		for _, e := range s.FileErrors {
			fmt.Fprintln(p.stdout, "postgres: error in "+oneLine(e.String()))
		}
		for _, x := range s.PendingRestart {
			fmt.Fprintln(p.stdout, oneLine(fmt.Sprintf("postgres: needs a restart: %s is %q and will be %q", x.Name, x.Running, x.File)))
		}
	}
	for _, x := range r.Poolers {
		for _, d := range x.Changed {
			fmt.Fprintln(p.stdout, oneLine(fmt.Sprintf("%s: %s: %q → %q", x.Pooler, d.Key, d.Running, d.Want)))
		}
		for _, d := range x.NotApplied {
			fmt.Fprintln(p.stdout, oneLine(x.Pooler+": not applied: "+d.String()))
		}
		for _, d := range x.NeedsRestart {
			fmt.Fprintln(p.stdout, oneLine(x.Pooler+": needs a restart: "+d.String()))
		}
	}
	if r.Code != member.Done {
		fmt.Fprintln(p.stderr, "pgbaton:", oneLine(r.Decision))
	} else {
		fmt.Fprintln(p.stdout, r.Decision)
	}
	return nil
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
