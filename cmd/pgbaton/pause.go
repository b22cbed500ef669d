package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pause"

	"github.com/pgbaton/pgbaton/config"
)

type pauseCmd struct {
	Lease   string `help:"The pause ends by itself after this time; default pause.lease." placeholder:"30s"`
	Timeout string `help:"The longest wait until the poolers are drained; then all are resumed; default pause.budget." placeholder:"15s"`
	Output  string `help:"Format of the report: ${enum}." enum:"table,json" default:"table"`
	DryRun  bool   `help:"Check, and print what would be done."`
}

func (c *pauseCmd) Run(p *program) error {
	lease, err := duration("--lease", c.Lease)
	if err != nil {
		return err
	}
	timeout, err := duration("--timeout", c.Timeout)
	if err != nil {
		return err
	}
	m, err := p.runtime(c.DryRun)
	if err != nil {
		return err
	}
	return p.report(pause.Pause(p.ctx, m, pause.Options{Lease: lease, Timeout: timeout}), c.Output)
}

func duration(flag, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	return config.ParseDuration(flag, text)
}

func (p *program) report(r pause.Report, output string) error {
	p.code = r.Code
	if output == "json" {
		if r.Poolers == nil {
			r.Poolers = []api.PoolerReport{} // [], not null
		}
		e := json.NewEncoder(p.stdout)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			pause.Report
			Code     int    `json:"code"`
			Decision string `json:"decision"`
		}{r, r.Code, r.Decision})
	}
	if len(r.Poolers) > 0 {
		w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "POOLER\tDONE\tERROR")
		for _, pooler := range r.Poolers {
			fmt.Fprintf(w, "%s\t%s\t%s\n", pooler.Pooler, pooler.Done, oneLine(pooler.Error))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if !r.Until.IsZero() {
		fmt.Fprintf(p.stdout, "The pause ends by itself at %s.\n", r.Until.Local().Format("15:04:05"))
	}
	if r.Code != member.Done {
		fmt.Fprintln(p.stderr, "pgbaton:", oneLine(r.Decision))
	} else if r.Decision != "" {
		fmt.Fprintln(p.stdout, r.Decision)
	}
	return nil
}
