package hooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/configversion"
	"github.com/pgbaton/pgbaton/patroni"
)

// DefaultReloadTimeout is how long a version may take to arrive. A kubelet brings a changed ConfigMap within its sync period (one
// minute) and the time of its cache (up to as much again).
const DefaultReloadTimeout = 2 * time.Minute

// ReloadOptions say what to reload and what to wait for.
type ReloadOptions struct {
	Target   string                 // one of the constants; "" is all
	Version  *configversion.Version // wait until this one, or a newer one, is there; nil reloads what is there
	Timeout  time.Duration          // longest wait for the version and for the end of a handover; 0 is 2 min
	Progress func(Step)             // told of every step, by several goroutines; may be nil
}

// Step is one thing that happened on the way.
type Step struct {
	Time   time.Time `json:"time"`
	Target string    `json:"target,omitempty"`
	Pooler string    `json:"pooler,omitempty"`
	Text   string    `json:"text"`
}

// reloadOutcome is the outcome for every target.
type reloadOutcome struct {
	Result `json:"-"`
	ReloadReport
}

// fault is why one target was not reloaded, or not to the end.
type fault struct {
	problem string // a Problem constant
	code    int    // 0 is Failed
	err     error
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// reload is one run of Reload.
type reload struct {
	rt       *Runtime
	o        ReloadOptions
	log      *slog.Logger
	journal  *journal
	patroni  *patroni.Client
	deadline time.Time // for what is waited for before anything is reloaded

	mu       sync.Mutex
	versions map[string]*VersionReport
	notSeen  string // what of PostgreSQL could not be looked at, and is no failure
}

// Reload waits for the configuration's version, reloads, and verifies that what was reloaded is what runs now. It blocks for
// the timeout at most until the version is there and no handover holds a pooler (code Failed, nothing reloaded), and then until it is
// verified: Patroni takes loop_wait at most to begin, a pooler a moment. What can be reloaded is, also where another target fails; code
// Failed then. With DryRun it looks and says what it would do. A cancelled context ends it; what was asked for by then may still be done.
func Reload(ctx context.Context, rt *Runtime, o ReloadOptions) reloadOutcome {
	if o.Target == "" {
		o.Target = ReloadAll
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultReloadTimeout
	}
	r := &reload{rt: rt, o: o, log: rt.Log.With("hook", "reload", "member", member()), journal: rt.openJournal("reload", newID()),
		versions: map[string]*VersionReport{}, deadline: time.Now().Add(o.Timeout)}
	var report reloadOutcome
	invalid := func(err error) reloadOutcome {
		return reloadOutcome{Result: Result{Code: Invalid, Decision: err.Error()}}
	}
	targets, err := r.targets()
	if err != nil {
		return invalid(err)
	}
	if r.patroni, err = rt.patroniClient(); err != nil && targets[ReloadPostgres] {
		return invalid(err)
	}
	if err := r.awaitVersions(ctx, targets); err != nil {
		report.Versions = r.versionReports()
		for _, target := range []string{ReloadPostgres, ReloadPgBouncer} {
			if targets[target] {
				r.journal.add(Entry{Event: EventNotBegun, Target: target, Code: Failed, Text: err.Error()})
			}
		}
		return r.conclude(report, []error{err})
	}
	var all sync.WaitGroup
	var errs [2]error
	if targets[ReloadPostgres] {
		all.Go(func() { report.Postgres, errs[0] = r.postgres(ctx) })
	}
	if targets[ReloadPgBouncer] {
		all.Go(func() { report.Poolers, errs[1] = r.pgbouncer(ctx) })
	}
	all.Wait()
	report.Versions = r.versionReports()
	r.journal.sync()
	return r.conclude(report, errs[:])
}

// conclude makes code and sentence of what went wrong.
func (r *reload) conclude(report reloadOutcome, errs []error) reloadOutcome {
	var texts []string
	for _, err := range errs {
		if err == nil {
			continue
		}
		texts = append(texts, err.Error())
		var f *fault
		if errors.As(err, &f) && report.Problem == "" {
			report.Problem, report.Code = f.problem, f.code
		}
		if report.Code == Done {
			report.Code = Failed
		}
	}
	report.Decision = strings.Join(texts, "; ")
	if len(texts) > 0 {
		return report
	}
	what := map[string]string{ReloadPostgres: "postgres", ReloadPgBouncer: "pgbouncer", ReloadAll: "postgres and pgbouncer"}[r.o.Target]
	switch {
	case r.rt.DryRun:
		report.Decision = "would reload " + what
	default:
		report.Decision = what + " reloaded and verified"
	}
	if r.notSeen != "" {
		report.Decision += "; " + r.notSeen
	}
	return report
}

// targets checks that what is asked for can be done with this configuration.
func (r *reload) targets() (map[string]bool, error) {
	c := r.rt.Config
	targets := map[string]bool{ReloadPostgres: r.o.Target != ReloadPgBouncer, ReloadPgBouncer: r.o.Target != ReloadPostgres}
	switch r.o.Target {
	case ReloadPostgres, ReloadPgBouncer, ReloadAll:
	default:
		return nil, fmt.Errorf("reload %q: it is postgres, pgbouncer or all", r.o.Target)
	}
	if targets[ReloadPgBouncer] && len(c.Poolers) == 0 {
		return nil, errors.New("no poolers are configured: set poolers in pgbaton.yaml, or reload postgres alone")
	}
	if r.o.Version == nil {
		return targets, nil
	}
	if targets[ReloadPostgres] && r.postgresVersion() == nil {
		return nil, errors.New("a configuration version of postgres cannot be seen: set versions.postgres, or reload without --config-version")
	}
	if targets[ReloadPgBouncer] && r.pgbouncerVersion() == nil {
		return nil, errors.New("a configuration version of pgbouncer cannot be seen: set versions.pgbouncer, or reload without --config-version")
	}
	return targets, nil
}

// say logs a step and passes it on.
func (r *reload) say(target, pooler, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	attrs := []any{"target", target}
	if pooler != "" {
		attrs = append(attrs, "pooler", pooler)
	}
	r.log.Info(text, attrs...)
	r.progress(target, pooler, text)
}

func (r *reload) progress(target, pooler, text string) {
	if r.o.Progress != nil {
		r.o.Progress(Step{Time: time.Now(), Target: target, Pooler: pooler, Text: text})
	}
}

func elapsed(start time.Time) time.Duration { return time.Since(start).Round(time.Millisecond) }
