package main

import (
	"errors"
	"os/signal"
	"syscall"

	"github.com/pgbaton/pgbaton/hooks"
	"github.com/pgbaton/pgbaton/httpapi"
)

type serveCmd struct {
	Listen string `help:"Where to listen; default serve.listen. Beyond loopback only with TLS and authentication." placeholder:"127.0.0.1:8009"`
}

func (c *serveCmd) Run(p *program) error {
	rt, err := p.runtime(false)
	if err != nil {
		return err
	}
	if c.Listen != "" {
		rt.Config.Serve.Listen = c.Listen
	}
	// A log that nobody reads any more is no reason to end.
	signal.Ignore(syscall.SIGPIPE)
	server, err := httpapi.New(httpapi.Options{Runtime: rt, Version: buildVersion()})
	if errors.Is(err, httpapi.ErrBusy) {
		p.code = hooks.Refused
		p.log().Error("serve ends", "hook", "serve", "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	return server.Serve(p.ctx)
}
