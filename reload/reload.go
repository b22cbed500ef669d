package reload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/configversion"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/state"
)

// DefaultTimeout is how long a version may take to arrive. A kubelet brings a changed ConfigMap within its sync period (one
// minute) and the time of its cache (up to as much again).
const DefaultTimeout = 2 * time.Minute

// Options say what to reload and what to wait for.
type Options struct {
	Target   string                 // one of the constants; "" is all
	Version  *configversion.Version // wait until this one, or a newer one, is there; nil reloads what is there
	Timeout  time.Duration          // longest wait for the version and for the end of a handover; 0 is 2 min
	Progress func(Progress)         // told of every step, by several goroutines; may be nil
}

// Progress is one thing that happened on the way.
type Progress struct {
	Time   time.Time `json:"time"`
	Target string    `json:"target,omitempty"`
	Pooler string    `json:"pooler,omitempty"`
	Text   string    `json:"text"`
}

// Report is the outcome for every target.
type Report struct {
	member.Result `json:"-"`
	api.ReloadReport
}

// classOf tells what to do about a problem: a configuration must be changed, or it is worth while to try again later.
func classOf(problem string) string {
	switch problem {
	case api.ProblemVersionInvalid, api.ProblemNotApplied, api.ProblemInvalidFile:
		return api.Validation
	}
	return api.Transient
}

// fault is why one target was not reloaded, or not to the end.
type fault struct {
	problem string // a Problem constant
	code    int    // 0 is Failed
	err     error
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// reload is one run of [Run].
type reload struct {
	m        *member.Member
	o        Options
	log      *slog.Logger
	journal  *state.Journal
	patroni  *patroni.Client
	deadline time.Time // for what is waited for before anything is reloaded

	versions map[string]*api.VersionReport
	notSeen  string // what of PostgreSQL could not be looked at, and is no failure
}

// Run waits for the configuration's version, reloads, and verifies that what was reloaded is what runs now. It blocks for
// the timeout at most until the version is there and no handover holds a pooler (code Failed, nothing reloaded), and then until it is
// verified: Patroni takes loop_wait at most to begin, a pooler a moment. What can be reloaded is, also where another target fails; code
// Failed then. With DryRun it looks and says what it would do. A cancelled context ends it; what was asked for by then may still be done.
func Run(ctx context.Context, m *member.Member, o Options) Report {
	if o.Target == "" {
		o.Target = api.TargetAll
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	r := &reload{m: m, o: o, log: m.Log.With("hook", "reload", "member", member.Name()), journal: m.Journal("reload", state.NewID()),
		versions: map[string]*api.VersionReport{}, deadline: time.Now().Add(o.Timeout)}
	var report Report
	invalid := func(err error) Report {
		return Report{Result: member.Result{Code: member.Invalid, Decision: err.Error()}}
	}
	targets, err := r.targets()
	if err != nil {
		return invalid(err)
	}
	if r.patroni, err = m.Patroni(); err != nil && targets[api.TargetPostgres] {
		return invalid(err)
	}
	if err := r.awaitVersions(ctx, targets); err != nil {
		report.Versions = r.versionReports()
		for _, target := range []string{api.TargetPostgres, api.TargetPgBouncer} {
			if targets[target] {
				r.journal.Add(state.Entry{Event: state.EventNotBegun, Target: target, Code: member.Failed, Text: err.Error()})
			}
		}
		return r.conclude(report, []error{err})
	}
	var all sync.WaitGroup
	var errs [2]error
	if targets[api.TargetPostgres] {
		all.Go(func() { report.Postgres, errs[0] = r.postgres(ctx) })
	}
	if targets[api.TargetPgBouncer] {
		all.Go(func() { report.Poolers, errs[1] = r.pgbouncer(ctx) })
	}
	all.Wait()
	report.Versions = r.versionReports()
	r.journal.Sync()
	return r.conclude(report, errs[:])
}

// conclude makes code and sentence of what went wrong.
func (r *reload) conclude(report Report, errs []error) Report {
	var texts []string
	for _, err := range errs {
		if err == nil {
			continue
		}
		texts = append(texts, err.Error())
		var f *fault
		if errors.As(err, &f) && report.Problem == "" {
			report.Problem, report.Code, report.Class = f.problem, f.code, classOf(f.problem)
		}
		if report.Code == member.Done {
			report.Code = member.Failed
		}
	}
	report.Decision = strings.Join(texts, "; ")
	if len(texts) > 0 {
		return report
	}
	what := map[string]string{
		api.TargetPostgres: "postgres", api.TargetPgBouncer: "pgbouncer", api.TargetAll: "postgres and pgbouncer",
	}[r.o.Target]
	switch {
	case r.m.DryRun:
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
	c := r.m.Config
	targets := map[string]bool{api.TargetPostgres: r.o.Target != api.TargetPgBouncer, api.TargetPgBouncer: r.o.Target != api.TargetPostgres}
	switch r.o.Target {
	case api.TargetPostgres, api.TargetPgBouncer, api.TargetAll:
	default:
		return nil, fmt.Errorf("reload %q: it is postgres, pgbouncer or all", r.o.Target)
	}
	if targets[api.TargetPgBouncer] && len(c.Poolers) == 0 {
		return nil, errors.New("no poolers are configured: set poolers in pgbaton.yaml, or reload postgres alone")
	}
	if r.o.Version == nil {
		return targets, nil
	}
	if targets[api.TargetPostgres] && postgresVersion(r.m, r.patroni) == nil {
		return nil, errors.New(
			"a configuration version of postgres cannot be seen: set versions.postgres, or reload without --config-version",
		)
	}
	if targets[api.TargetPgBouncer] && pgbouncerVersion(r.m) == nil {
		return nil, errors.New(
			"a configuration version of pgbouncer cannot be seen: set versions.pgbouncer, or reload without --config-version",
		)
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
		r.o.Progress(Progress{Time: time.Now(), Target: target, Pooler: pooler, Text: text})
	}
}

func elapsed(start time.Time) time.Duration { return time.Since(start).Round(time.Millisecond) }
