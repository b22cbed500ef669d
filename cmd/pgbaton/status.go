package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/health"
	"github.com/pgbaton/pgbaton/member"
)

type statusCmd struct {
	Output string `help:"Format of the status: ${enum}." enum:"table,json" default:"table"`
}

func (c *statusCmd) Run(p *program) error {
	m, err := p.looker()
	if err != nil {
		return err
	}
	s := health.Of(p.ctx, m)
	if s.Invalid {
		p.code = member.Invalid
	}
	if c.Output == "json" {
		return p.printJSON(s, true)
	}
	p.page().status(s)
	return nil
}

func (p *page) status(s health.Status) {
	line := func(name string, words ...string) {
		if text := strings.Join(words, ", "); text != "" {
			p.line(bold, fmt.Sprintf("%-9s", name), text)
		}
	}
	line("Member", s.Member)
	line("Scope", s.Scope)
	line("Server", orError(s.Server.Role, s.Server.Error))
	if s.Patroni.Error != "" {
		line("Patroni", s.Patroni.Error)
	} else {
		words := []string{strings.TrimSpace(s.Patroni.Role + " " + s.Patroni.State)}
		if s.Patroni.Version != "" {
			words = append(words, "version "+s.Patroni.Version)
		}
		if s.Patroni.Maintenance {
			words = append(words, "maintenance mode")
		}
		line("Patroni", words...)
		lock := "held by another or nobody"
		if s.Patroni.HasLock {
			lock = "held"
		}
		if !s.Patroni.DCSLastSeen.IsZero() {
			lock += fmt.Sprintf(", DCS seen %s ago", time.Since(s.Patroni.DCSLastSeen).Round(time.Second))
		}
		line("Lock", lock)
	}
	// Another user, or a link elsewhere, may work with another file and another directory.
	file := s.ConfigFile
	if file == "" {
		file = "no file"
	}
	line("Config", file)
	line("State", s.StateDir)
	for _, l := range s.Leases {
		text := fmt.Sprintf("by %s since %s, until %s", l.Owner, clock(l.Since), clock(l.Until))
		if l.KeeperGone {
			text += ", and its keeper is gone"
		}
		line("Lease", text)
	}
	for _, v := range s.Versions {
		line("Version", versionLine(v))
	}
	p.poolers(s.Poolers)
	p.handover(s.Handover)
	for i, problem := range s.Problems {
		if i == 0 {
			p.say("\nPROBLEMS", red)
		}
		p.line("", "- ", problem)
	}
}

func (p *page) poolers(poolers []api.PoolerStatus) {
	if len(poolers) == 0 {
		return
	}
	rows := make([][]cell, 0, len(poolers))
	for _, x := range poolers {
		paused := cell{text: x.Paused}
		if x.PausedBy != "" {
			paused.text += " (" + x.PausedBy + ")"
		}
		if len(x.Databases) > 0 {
			paused.text += " " + strings.Join(x.Databases, ",")
		}
		if x.Paused == "yes" || len(x.Databases) > 0 {
			paused.colour = yellow
		}
		row := cells(x.Pooler, x.Version, "", fmt.Sprint(x.Waiting), seconds(x.MaxWaitSeconds), fmt.Sprint(x.Servers), "")
		row[2], row[6] = paused, bad(x.Error)
		rows = append(rows, row)
	}
	p.say("", "")
	p.table([]string{"POOLER", "VERSION", "PAUSED", "WAITING", "LONGEST", "SERVERS", "ERROR"}, rows)
}

func (p *page) handover(entries []api.HandoverEvent) {
	if len(entries) == 0 {
		return
	}
	rows := make([][]cell, 0, len(entries))
	for _, e := range entries {
		rows = append(rows, cells(e.Time.Local().Format("15:04:05.000"), e.Hook, e.Event, e.Pooler, seconds(e.TookSeconds), e.Text))
	}
	p.say("\nLAST HANDOVER, "+entries[0].Time.Local().Format(time.DateOnly), "")
	p.table([]string{"TIME", "HOOK", "EVENT", "POOLER", "TOOK", "TEXT"}, rows)
}

func orError(value, problem string) string {
	if problem == "" {
		return value
	}
	return strings.TrimPrefix(value+": "+problem, ": ")
}

func clock(t time.Time) string { return t.Local().Format("15:04:05") }

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond).String()
}
