package main

import (
	"time"

	"github.com/pgbaton/pgbaton/hooks"
	"github.com/pgbaton/pgbaton/pause"
	"github.com/pgbaton/pgbaton/process"
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

type workCmd struct {
	event
	Stopped time.Time `format:"2006-01-02T15:04:05.000000Z07:00" help:"When the server was started that is being stopped."`
}

func (c *workCmd) Run(p *program) error {
	m, err := p.hookRuntime(false)
	if err != nil {
		return err
	}
	ev := c.hook()
	ev.Stopped = c.Stopped
	p.code = hooks.Work(p.ctx, m, ev, p.stdout).Code
	return nil
}

// orphanCmd is a process that check starts to see who reaps it.
type orphanCmd struct{}

func (*orphanCmd) Run(p *program) error { return process.Orphan(p.stdin, p.stdout) }
