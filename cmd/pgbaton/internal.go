package main

import (
	"github.com/pgbaton/pgbaton/hooks"
	"github.com/pgbaton/pgbaton/pause"
)

// keepCmd and workCmd are the processes that outlive a hook. Hooks start them; people do not.
type keepCmd struct{}

func (*keepCmd) Run(p *program) error {
	m, err := p.hookRuntime(false)
	if err != nil {
		return err
	}
	p.code = pause.Keep(p.ctx, m, p.stdin, p.stdout).Code
	return nil
}

type workCmd struct{ event }

func (c *workCmd) Run(p *program) error {
	m, err := p.hookRuntime(false)
	if err != nil {
		return err
	}
	p.code = hooks.Work(p.ctx, m, c.hook(), p.stdout).Code
	return nil
}
