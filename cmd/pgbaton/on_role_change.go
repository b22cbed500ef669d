package main

import (
	"log/slog"

	"github.com/pgbaton/pgbaton/member"

	"github.com/pgbaton/pgbaton/hooks"
)

// event is what Patroni appends to a callback's command.
type event struct {
	Action string `arg:"" optional:"" complete:"on_role_change|on_start|on_restart|on_stop" help:"on_role_change, on_start, on_restart or on_stop."`
	Role   string `arg:"" optional:"" complete:"primary|replica|standby_leader" help:"The role of the member; without it, pgbaton asks the local server."`
	Scope  string `arg:"" optional:"" help:"The name of the cluster."`
}

func (e event) hook() hooks.Event {
	return hooks.Event{Action: e.Action, Role: e.Role, Scope: e.Scope}
}

type onRoleChangeCmd struct {
	event
	DryRun bool `help:"Check, and print what would be done."`
}

func (c *onRoleChangeCmd) Run(p *program) error {
	m, err := p.hookRuntime(c.DryRun)
	if err != nil {
		return err
	}
	result := hooks.OnRoleChange(p.ctx, m, c.hook())
	level := slog.LevelInfo
	if result.Code != member.Done {
		level = slog.LevelWarn
	}
	m.Log.Log(
		p.ctx,
		level,
		"on_role_change ends",
		"hook",
		"on_role_change",
		"action",
		c.Action,
		"role",
		c.Role,
		"decision",
		result.Decision,
		"code",
		result.Code,
	)
	p.code = result.Code
	return nil
}
