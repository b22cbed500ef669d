package main

import (
	"fmt"
	"time"

	"github.com/pgbaton/pgbaton/api"
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
		return p.printJSON(struct {
			pause.Report
			Code     int    `json:"code"`
			Decision string `json:"decision"`
		}{r, r.Code, r.Decision}, true)
	}
	if len(r.Poolers) > 0 {
		var rows [][]cell
		for _, pooler := range r.Poolers {
			rows = append(rows, []cell{{text: pooler.Pooler}, {text: pooler.Done}, bad(pooler.Error)})
		}
		p.page().table([]string{"POOLER", "DONE", "ERROR"}, rows)
	}
	if !r.Until.IsZero() {
		fmt.Fprintf(p.stdout, "The pause ends by itself at %s.\n", r.Until.Local().Format("15:04:05"))
	}
	p.decision(r.Code, r.Decision)
	return nil
}
