package main

import (
	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/maintenance"
)

type restartCmd struct {
	Members    []string `arg:"" optional:"" name:"member" help:"Members to restart; default: all that --pending and --older-than say."`
	Pending    bool     `help:"Those that have a pending restart."`
	OlderThan  string   `help:"Those whose server is older than this version of PostgreSQL." placeholder:"17.6"`
	Rolling    bool     `help:"All members, one after the other."`
	KeepLeader bool     `help:"Restart the primary in place, behind the pause, without a switchover."`
	Candidate  string   `help:"The member that is to be the primary; default: the one that is fit best." placeholder:"MEMBER"`
	IfLagging  string   `help:"When nobody is near enough for the switchover: wait, in-place or refuse; default wait." placeholder:"wait"`
	WarmUp     string   `help:"After each restart, wait for autoprewarm, or run a program (with PGBATON_MEMBER, PGBATON_HOST, PGBATON_PORT)." placeholder:"autoprewarm|PROGRAM"`
	runFlags
}

func (c *restartCmd) Run(p *program) error {
	r, wrong := maintenance.AskRestart(api.RestartBody{Members: c.Members, Pending: c.Pending, OlderThan: c.OlderThan, Rolling: c.Rolling,
		KeepLeader: c.KeepLeader, Candidate: c.Candidate, Resume: c.Resume, MaxReplayLag: c.MaxReplayLag, IfLagging: c.IfLagging,
		MaxTransaction: c.MaxTransaction, StepTimeout: c.StepTimeout})
	if err := flagErrors(wrong); err != nil {
		return err
	}
	if c.Resume && c.WarmUp != "" {
		return &config.Error{Name: "--resume", Problem: "--resume goes on as the run was asked for: --warm-up may not be given"}
	}
	r.WarmUp = c.WarmUp
	return p.maintain("restart", r, c.runFlags)
}
