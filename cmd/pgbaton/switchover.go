package main

import (
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/maintenance"
)

// runFlags are what both commands of planned maintenance have.
type runFlags struct {
	MaxReplayLag   string `help:"How far the next primary may be behind with its replay: a size or a time; default 16MB." placeholder:"BYTES|TIME"`
	MaxTransaction string `help:"Before each step, wait until no transaction on its member is older; default: they are not looked at." placeholder:"30s"`
	StepTimeout    string `help:"The longest time of one step with its waits; default 10m." placeholder:"10m"`
	SkipChecks     bool   `help:"Go on where pgbaton check has found what would spoil the handover."`
	Yes            bool   `help:"Do not ask. Needed where nobody can be asked: without a terminal, and with --output json." short:"y"`
	DryRun         bool   `help:"Show what would be done, and do nothing."`
	Resume         bool   `help:"Go on with the run that was cut off or stopped on this member."`
	Output         string `help:"Format of the report: ${enum}. json: a line an event, and the report as the last one." enum:"table,json" default:"table"`
}

type switchoverCmd struct {
	Candidate string `help:"The member that is to be the primary; default: the one that is fit best." placeholder:"MEMBER"`
	Prefer    string `help:"Of those that are fit, rather a member with this label, or, without a value, one whose label differs from the primary's." placeholder:"LABEL[=VALUE]"`
	At        string `help:"Have Patroni do it then: 2026-12-01T03:00:00Z, or 2026-12-01 03:00 in local time." placeholder:"TIME"`
	FromHere  bool   `help:"Only if this member is the primary; else there is nothing to do."`
	IfLagging string `help:"When nobody is near enough: wait or refuse; default wait." placeholder:"wait"`
	runFlags
}

func (c *switchoverCmd) Run(p *program) error {
	at, err := scheduled(c.At)
	if err != nil {
		return err
	}
	r, wrong := maintenance.AskSwitchover(api.SwitchoverBody{Candidate: c.Candidate, Prefer: c.Prefer, At: at, FromHere: c.FromHere,
		Resume: c.Resume, MaxReplayLag: c.MaxReplayLag, IfLagging: c.IfLagging, MaxTransaction: c.MaxTransaction,
		StepTimeout: c.StepTimeout})
	if err := flagErrors(wrong); err != nil {
		return err
	}
	return p.maintain("switchover", r, c.runFlags)
}

// scheduled is a time as the body of a request has it. People write local time without a T and a zone.
func scheduled(text string) (string, error) {
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if at, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return at.Format(time.RFC3339), nil
		}
	}
	return text, nil
}

// flagErrors is what is wrong with a request, with the names of flags.
func flagErrors(wrong []api.FieldError) error {
	if len(wrong) == 0 {
		return nil
	}
	var name strings.Builder
	for _, r := range wrong[0].Location {
		if r >= 'A' && r <= 'Z' {
			name.WriteRune('-')
			r += 'a' - 'A'
		}
		name.WriteRune(r)
	}
	if name.String() == "members" {
		return &config.Error{
			Name:    "MEMBER",
			Problem: "nothing says which members to restart: name them, or give --pending, --older-than or --rolling",
		}
	}
	flag := "--" + name.String()
	return &config.Error{Name: flag, Problem: flag + " " + wrong[0].Message}
}
