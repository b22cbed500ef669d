package main

import (
	"log/slog"

	"github.com/pgbaton/pgbaton/member"

	"github.com/pgbaton/pgbaton/hooks"
)

// event is what Patroni appends to a callback's command.
type event struct {
	Action string `arg:"" optional:"" help:"on_role_change, on_start, on_restart or on_stop."`
	Role   string `arg:"" optional:"" help:"The member's role; without it the local server is asked."`
	Scope  string `arg:"" optional:"" help:"The cluster's name."`
}

func (e event) hook() hooks.Event {
	return hooks.Event{Action: e.Action, Role: e.Role, Scope: e.Scope}
}

type onRoleChangeCmd struct {
	event
	DryRun bool `help:"Look and say what would be done."`
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
	m.Log.Log(p.ctx, level, "on_role_change ends", "hook", "on_role_change", "action", c.Action, "role", c.Role, "decision", result.Decision, "code", result.Code)
	p.code = result.Code
	return nil
}
