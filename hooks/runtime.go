package hooks

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/process"
)

// Runtime is what every hook works with.
type Runtime struct {
	Config *config.Config
	Log    *slog.Logger
	DryRun bool
	Self   []string // how to start this program again: its path and the flags that lead to the same configuration
}

// Exit codes.
const (
	Done        = 0 // or nothing to do
	Failed      = 1
	Invalid     = 2 // usage or configuration
	BudgetSpent = 3 // the policy was applied
	Refused     = 4 // preconditions
)

// Result is how a hook ended: an exit code, and the decision as a sentence.
type Result struct {
	Code     int
	Decision string
}

// dir is the state directory.
func (rt *Runtime) dir() stateDir { return stateDir{path: rt.Config.StateDir, log: rt.Log} }

// openJournal opens this member's journal; a dry run writes nothing into it.
func (rt *Runtime) openJournal(hook, handover string) *journal {
	d := rt.dir()
	if rt.DryRun {
		d.path = ""
	}
	return d.journal(member(), hook, handover)
}

func (rt *Runtime) patroniClient() (*patroni.Client, error) {
	c := rt.Config.Patroni
	return patroni.New(patroni.Options{
		URL: c.URL, Username: c.Username, Password: c.Password,
		CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile,
	})
}

// Hidden commands of this program, which it starts for itself.
const (
	keepCommand = "_keep"
	workCommand = "_work"
)

// startDetached starts this program again as a process that outlives us, with the same configuration. See [process.StartDetached].
func (rt *Runtime) startDetached(quiet bool, greeting string, args ...string) (*process.Detached, error) {
	return process.StartDetached(rt.Self, quiet, greeting, args...)
}

func (rt *Runtime) localServer() (*postgres.Server, error) {
	return postgres.Open(rt.Config.Postgres)
}

func (rt *Runtime) specs() []pgb.Spec {
	specs := make([]pgb.Spec, 0, len(rt.Config.Poolers))
	for _, p := range rt.Config.Poolers {
		specs = append(specs, pgb.Spec{
			DSN: p.DSN, Password: p.Password, First: p.Resolve == "one",
			Databases: p.Databases.Names, Pidfile: p.Pidfile, Config: p.Config,
		})
	}
	return specs
}

// fleet resolves the configured poolers. It remembers the addresses that it was told, so that a keeper started later
// goes to the same ones even when the name has moved on or the name service is gone.
func (rt *Runtime) fleet(ctx context.Context, known addressBook) ([]*pgb.Pooler, addressBook, []error) {
	book := addressBook{}
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
	poolers, errs := pgb.Resolve(ctx, rt.specs(), lookup)
	for host, addresses := range known {
		book[host] = addresses
	}
	return poolers, book, errs
}

// addressBook is what names resolved to.
type addressBook map[string][]string

func closeAll(poolers []*pgb.Pooler) {
	for _, p := range poolers {
		p.Close()
	}
}

// member is this member's name for logs: what Patroni calls it is not known before it answers.
func member() string {
	if name := os.Getenv("PATRONI_NAME"); name != "" {
		return name
	}
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

// checkBudget finds a configuration that would not do for the guard, where Patroni answers: better told to a person now than to a log
// at night.
func (rt *Runtime) checkBudget(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, restTimeout)
	defer cancel()
	client, err := rt.patroniClient()
	if err != nil {
		return err
	}
	dynamic, err := client.Dynamic(ctx)
	if err != nil || dynamic.TTL <= 0 {
		return nil
	}
	return config.CheckTTL(rt.Config.Pause.Budget, dynamic.TTL)
}

// serverConn is what the local server is asked.
type serverConn = *postgres.Conn

// withServer calls do with a connection of its own, for statusTimeout at most.
func (rt *Runtime) withServer(ctx context.Context, do func(context.Context, serverConn) error) error {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	server, err := rt.localServer()
	if err != nil {
		return err
	}
	conn, err := server.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return do(ctx, conn)
}

// How long one question may take.
const (
	consoleTimeout = 2 * time.Second         // to one console
	restTimeout    = 1500 * time.Millisecond // to Patroni; without an answer by then it is shutting down or frozen
	statusTimeout  = 3 * time.Second         // to the local server, by withServer
)
