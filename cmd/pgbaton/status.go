package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

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
		e := json.NewEncoder(p.stdout)
		e.SetIndent("", "  ")
		return e.Encode(s)
	}
	return p.statusTable(s)
}

func (p *program) statusTable(s health.Status) error {
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	line := func(name string, words ...string) {
		if text := strings.Join(words, ", "); text != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, oneLine(text))
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
	if err := w.Flush(); err != nil {
		return err
	}
	if len(s.Poolers) > 0 {
		fmt.Fprintln(w, "\nPOOLER\tVERSION\tPAUSED\tWAITING\tLONGEST\tSERVERS\tERROR")
		for _, x := range s.Poolers {
			paused := x.Paused
			if x.PausedBy != "" {
				paused += " (" + x.PausedBy + ")"
			}
			if len(x.Databases) > 0 {
				paused += " " + strings.Join(x.Databases, ",")
			}
			fmt.Fprintf(
				w,
				"%s\t%s\t%s\t%d\t%s\t%d\t%s\n",
				x.Pooler,
				x.Version,
				paused,
				x.Waiting,
				seconds(x.MaxWaitSeconds),
				x.Servers,
				oneLine(x.Error),
			)
		}
	}
	if len(s.Handover) > 0 {
		fmt.Fprintln(w, "\nLAST HANDOVER\tHOOK\tEVENT\tPOOLER\tTOOK\tTEXT")
		for _, e := range s.Handover {
			fmt.Fprintf(
				w,
				"%s\t%s\t%s\t%s\t%s\t%s\n",
				e.Time.Local().Format("2006-01-02 15:04:05.000"),
				e.Hook,
				e.Event,
				e.Pooler,
				seconds(e.TookSeconds),
				oneLine(e.Text),
			)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for i, problem := range s.Problems {
		if i == 0 {
			fmt.Fprintln(p.stdout, "\nPROBLEMS")
		}
		fmt.Fprintln(p.stdout, "- "+oneLine(problem))
	}
	return nil
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
