package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pause"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/httpapi"
	"github.com/pgbaton/pgbaton/operation"
)

// memoryLimit is where the collector begins to work harder: a sidecar is given little.
const memoryLimit = 32 << 20

// listenFlag is serve's alone: a keeper or worker that it starts has no such flag.
const listenFlag = "--listen"

type serveCmd struct {
	Listen    string `key:"serve.listen" help:"Where to listen; default serve.listen. Beyond loopback only with TLS and authentication." placeholder:"127.0.0.1:8009"`
	Reconcile bool   `help:"On the writable primary, end pauses of pgbaton that have outlived their lease."`
}

func (c *serveCmd) Run(p *program) error {
	options := p.options()
	options.Reconcile = c.Reconcile
	m, noStateDir, err := p.runtimeOf(options, false)
	if err == nil {
		err = noStateDir
	}
	if err != nil {
		return err
	}
	m.Recheck = func() error {
		_, err := config.Load(options)
		return err
	}
	o := httpapi.Options{Member: m, Version: buildVersion()}
	if mode := m.Config.Serve.Reconcile; mode != config.ReconcileOff {
		o.Reconciler = pause.NewReconciler(m, mode == config.ReconcileAll)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	// A log that nobody reads any more is no reason to end.
	signal.Ignore(syscall.SIGPIPE)
	server, err := httpapi.New(o)
	if errors.Is(err, operation.ErrBusy) {
		p.code = member.Refused
		p.log().Error("serve ends", "hook", "serve", "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(p.ctx)
	var taking sync.WaitGroup
	defer taking.Wait()
	defer cancel()
	taking.Go(func() { pause.TakeUpWhile(ctx, m) })
	return server.Serve(p.ctx)
}
