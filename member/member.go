package member

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/process"
	"github.com/pgbaton/pgbaton/state"
)

// Member is this member of the cluster as its configuration has it: what every command works with.
type Member struct {
	Config *config.Config
	Log    *slog.Logger
	DryRun bool
	Self   []string // how to start this program again: its path and the flags that lead to the same configuration

	// Recheck loads the configuration once more and says why the next hook could not use it. nil in a process too short-lived to care.
	Recheck func() error
}

// Exit codes.
const (
	Done        = 0 // or nothing to do
	Failed      = 1
	Invalid     = 2 // usage or configuration
	BudgetSpent = 3 // the policy was applied
	Refused     = 4 // preconditions
)

// Result is how a command ended: an exit code, the decision as a sentence, and what kind of error it is.
type Result struct {
	Code     int
	Decision string
	Class    string // of the error, where who decided knows better than the code tells: a class of package api
}

// ErrorClass is what whoever asked should do about it: [api.Transient] (try again later), [api.Validation] (change the configuration or the
// request), [api.Permanent] (ask a person). It is "" where all went well.
func (r Result) ErrorClass() string {
	switch {
	case r.Class != "" || r.Code == Done:
		return r.Class
	case r.Code == Invalid:
		return api.Validation
	case r.Code == Refused:
		return api.Permanent
	}
	return api.Transient
}

// StateDir is the state directory.
func (m *Member) StateDir() state.Dir { return state.Dir{Path: m.Config.StateDir, Log: m.Log} }

// Journal opens this member's journal; a dry run writes nothing into it.
func (m *Member) Journal(hook, handover string) *state.Journal {
	d := m.StateDir()
	if m.DryRun {
		d.Path = ""
	}
	return d.Journal(Name(), hook, handover)
}

// Patroni is a client of this member's REST API. The error is the configuration's.
func (m *Member) Patroni() (*patroni.Client, error) {
	c := m.Config.Patroni
	return patroni.New(patroni.Options{
		URL: c.URL, Username: c.Username, Password: c.Password,
		CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile,
	})
}

// Hidden commands of this program, which it starts for itself.
const (
	KeepCommand   = "_keep"
	WorkCommand   = "_work"
	OrphanCommand = "_orphan"
)

// WorkerLock is the lock in the state directory that this member's worker holds while it runs.
const WorkerLock = "worker.lock"

// StartDetached starts this program again as a process that outlives us, with the same configuration. See [process.StartDetached].
func (m *Member) StartDetached(quiet bool, greeting string, args ...string) (*process.Detached, error) {
	return process.StartDetached(m.Self, quiet, greeting, args...)
}

// StartOwn does the same for what nobody needs any more once Patroni kills the callback that has started it. See [process.StartOwn].
func (m *Member) StartOwn(args ...string) (*process.Detached, error) {
	return process.StartOwn(m.Self, false, "", args...)
}

// Server is this member's PostgreSQL server. It does not connect; the error is the configuration's.
func (m *Member) Server() (*postgres.Server, error) {
	return postgres.Open(m.Config.Postgres)
}

func (m *Member) specs() []pgb.Spec {
	specs := make([]pgb.Spec, 0, len(m.Config.Poolers))
	for i, p := range m.Config.Poolers {
		specs = append(specs, pgb.Spec{
			DSN: p.DSN, Password: p.Password, First: p.Resolve == "one",
			Databases: p.Databases.Names, Pidfile: p.Pidfile, Config: p.Config, Entry: i,
		})
	}
	return specs
}

// Poolers resolves the configured poolers. It remembers the addresses that it was told, so that a keeper started later
// goes to the same ones even when the name has moved on or the name service is gone.
func (m *Member) Poolers(ctx context.Context, known AddressBook) ([]*pgb.Pooler, AddressBook, []error) {
	book := AddressBook{}
	var lock sync.Mutex
	lookup := func(ctx context.Context, host string) ([]string, error) {
		if addresses, ok := known[host]; ok {
			return addresses, nil
		}
		if known != nil {
			return nil, fmt.Errorf("%s was not resolved when the pause was made", host)
		}
		addresses, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			return nil, fmt.Errorf("cannot resolve %s: %w", host, err)
		}
		lock.Lock()
		book[host] = addresses
		lock.Unlock()
		return addresses, nil
	}
	poolers, errs := pgb.Resolve(ctx, m.specs(), lookup)
	poolers = m.withoutOwn(ctx, pgb.OnePerProcess(ctx, poolers))
	for host, addresses := range known {
		book[host] = addresses
	}
	return poolers, book, errs
}

// AddressBook is what names resolved to.
type AddressBook map[string][]string

func CloseAll(poolers []*pgb.Pooler) {
	for _, p := range poolers {
		p.Close()
	}
}

// Name is this member's name for callers: Patroni's where Patroni's own configuration is known, else as in the journal.
func (m *Member) Name() string {
	if name := m.Config.Patroni.Name; name != "" {
		return name
	}
	return Name()
}

// Name is this member's name for logs: what Patroni calls it is not known before it answers.
func Name() string {
	if name := os.Getenv("PATRONI_NAME"); name != "" {
		return name
	}
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

// CheckBudget finds a configuration that would not do for the guard, where Patroni answers: better told to a person now than to a log
// at night.
func (m *Member) CheckBudget(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, RestTimeout)
	defer cancel()
	client, err := m.Patroni()
	if err != nil {
		return err
	}
	dynamic, err := client.Dynamic(ctx)
	if err != nil || dynamic.TTL <= 0 {
		return nil
	}
	return CheckTTL(m.Config.Pause.Budget, dynamic.TTL)
}

// WithServer calls do with a connection of its own to this member's server, for [StatusTimeout] at most.
func (m *Member) WithServer(ctx context.Context, do func(context.Context, *postgres.Conn) error) error {
	server, err := m.Server()
	if err != nil {
		return err
	}
	return With(ctx, server, do)
}

// With calls do with a connection of its own to a server, for [StatusTimeout] at most.
func With(ctx context.Context, server *postgres.Server, do func(context.Context, *postgres.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, StatusTimeout)
	defer cancel()
	conn, err := server.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return do(ctx, conn)
}

// How long one question may take.
const (
	ConsoleTimeout = 2 * time.Second         // to one console
	RestTimeout    = 1500 * time.Millisecond // to Patroni; without an answer by then it is shutting down or frozen
	StatusTimeout  = 3 * time.Second         // to the local server, by withServer
)
