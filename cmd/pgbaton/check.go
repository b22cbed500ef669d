package main

import (
	"fmt"
	"strings"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/health"
	"github.com/pgbaton/pgbaton/member"
)

type checkCmd struct {
	All    bool   `help:"Have every member of the cluster make the check, over its serve: members in the configuration file."`
	Output string `help:"Format of the findings: ${enum}." enum:"table,json" default:"table"`
}

func (c *checkCmd) Run(p *program) error {
	m, err := p.looker()
	if err != nil {
		return err
	}
	look := health.Check
	if c.All {
		look = health.CheckAll
	}
	report := look(p.ctx, m)
	if !report.OK {
		p.code = member.Refused
	}
	if c.Output == "json" {
		return p.printJSON(report, true)
	}
	p.page().check(report)
	return nil
}

func (p *page) check(report api.CheckReport) {
	errors := 0
	for _, f := range report.Findings {
		if f.Severity == api.SeverityError {
			errors++
		}
	}
	p.findings(report.Findings)
	verdict, colour := "nothing that would spoil a handover was found", green
	if errors > 0 {
		verdict, colour = "a handover now would be spoiled", red
	}
	checked := []string{report.Member}
	if len(report.Members) > 0 {
		checked = nil
	}
	for _, m := range report.Members {
		if m.Error == "" {
			checked = append(checked, m.Member)
		}
	}
	verdict = fmt.Sprintf("%s (%s, %s)", verdict, count(errors, "error"), count(len(report.Findings)-errors, "warning"))
	p.line(colour, oneLine(strings.Join(checked, ", "))+": ", verdict)
	if len(report.Findings) > 0 {
		p.say("docs/checks.md explains each finding.", "")
	}
}

func (p *page) findings(found []api.Finding) {
	for _, f := range found {
		colour := yellow
		if f.Severity == api.SeverityError {
			colour = red
		}
		p.line(colour, oneLine(strings.ToUpper(f.Severity))+"  ", f.ID)
		p.line("", "  found   ", f.Found)
		p.line("", "  why     ", f.Why)
		if f.Change != "" {
			p.line("", "  change  ", f.Change)
		}
		if len(f.SeenFrom) > 0 {
			p.line("", "  seen    from ", strings.Join(f.SeenFrom, ", "))
		}
		p.say("", "")
	}
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
