package main

import (
	"os"

	"github.com/pgbaton/pgbaton/hooks"
)

type beforeStopCmd struct {
	DryRun bool `help:"Check, and print what would be done."`
}

func (c *beforeStopCmd) Run(p *program) error {
	m, err := p.hookRuntime(c.DryRun)
	if err != nil {
		return err
	}
	p.code = hooks.BeforeStop(p.ctx, m, func(code int) {
		p.flush()
		os.Exit(code)
	}).Code
	return nil
}
