package main

import (
	"encoding/json"
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
		e := json.NewEncoder(p.stdout)
		e.SetIndent("", "  ")
		return e.Encode(report)
	}
	return p.checkTable(report)
}

func (p *program) checkTable(report api.CheckReport) error {
	errors := 0
	for _, f := range report.Findings {
		if f.Severity == api.SeverityError {
			errors++
		}
	}
	p.findings(report.Findings)
	verdict := "nothing that would spoil a handover was found"
	if errors > 0 {
		verdict = "a handover now would be spoiled"
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
	_, err := fmt.Fprintf(
		p.stdout,
		"%s: %s (%s, %s)\n",
		strings.Join(checked, ", "),
		verdict,
		count(errors, "error"),
		count(len(report.Findings)-errors,
			"warning"),
	)
	if len(report.Findings) > 0 && err == nil {
		_, err = fmt.Fprintln(p.stdout, "docs/checks.md explains each finding.")
	}
	return err
}

func (p *program) findings(found []api.Finding) {
	for _, f := range found {
		fmt.Fprintf(p.stdout, "%s  %s\n  found   %s\n  why     %s\n", strings.ToUpper(f.Severity), f.ID, oneLine(f.Found), oneLine(f.Why))
		if f.Change != "" {
			fmt.Fprintf(p.stdout, "  change  %s\n", oneLine(f.Change))
		}
		if len(f.SeenFrom) > 0 {
			fmt.Fprintf(p.stdout, "  seen    from %s\n", strings.Join(f.SeenFrom, ", "))
		}
		fmt.Fprintln(p.stdout)
	}
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
