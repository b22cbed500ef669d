package main

import "github.com/pgbaton/pgbaton/pause"

type resumeCmd struct {
	Output string `help:"Format of the report: ${enum}." enum:"table,json" default:"table"`
	DryRun bool   `help:"Check, and print what would be done."`
}

func (c *resumeCmd) Run(p *program) error {
	m, err := p.runtime(c.DryRun)
	if err != nil {
		return err
	}
	return p.report(pause.Resume(p.ctx, m), c.Output)
}
