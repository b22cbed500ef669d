package maintenance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/plan"
	"github.com/pgbaton/pgbaton/state"
)

// DefaultStepTimeout is for one step, with its waits, where nothing else is said.
const DefaultStepTimeout = 10 * time.Minute

// Request is what is asked for. Zero values are the defaults.
type Request struct {
	Kind       string                 `json:"kind"` // [api.KindSwitchover], [api.KindRestart]
	Switchover plan.SwitchoverOptions `json:"switchover,omitzero"`
	Restart    plan.RestartOptions    `json:"restart,omitzero"`

	// FromHere: a switchover only if this member is the primary.
	FromHere bool `json:"fromHere,omitempty"`
	// Prefer is a label, NAME or NAME=VALUE, that one of the candidates is chosen by: see [plan.Member].
	Prefer string `json:"prefer,omitempty"`
	// At has Patroni do a switchover then, and the run wait for it. A stop before then takes it back.
	At time.Time `json:"at,omitzero"`
	// MaxTransaction is how old a transaction on the member of the next step may be; older ones are waited for. 0: they are not looked at.
	MaxTransaction time.Duration `json:"maxTransaction,omitempty"`
	StepTimeout    time.Duration `json:"stepTimeout,omitempty"` // for one step with its waits; default [DefaultStepTimeout]
	// WarmUp is run after each restart, before the next step: "autoprewarm" waits for pg_prewarm's, anything else is a program with its
	// arguments, separated by spaces. It finds the member in PGBATON_MEMBER, PGBATON_HOST and PGBATON_PORT.
	WarmUp string `json:"warmUp,omitempty"`

	ID   string          `json:"-"` // of the run, 12 hexadecimal digits; "" makes one
	Stop <-chan struct{} `json:"-"` // closed: stop after the present step; nil: never. To stop at once, the context is cancelled
}

// options are what plans go by.
func (r Request) options() plan.Options {
	if r.Kind == api.KindSwitchover {
		return r.Switchover
	}
	return r.Restart
}

// withDefaults fills in what was not said.
func (r Request) withDefaults() Request {
	if r.StepTimeout == 0 {
		r.StepTimeout = DefaultStepTimeout
	}
	for _, limit := range []*plan.Limit{&r.Switchover.MaxReplayLag, &r.Restart.MaxReplayLag} {
		if *limit == (plan.Limit{}) {
			*limit = plan.DefaultLimit()
		}
	}
	return r
}

// limit is the replay lag that is allowed.
func (r Request) limit() plan.Limit {
	if r.Kind == api.KindSwitchover {
		return r.Switchover.MaxReplayLag
	}
	return r.Restart.MaxReplayLag
}

func (r Request) validate() error {
	switch {
	case r.Kind != api.KindSwitchover && r.Kind != api.KindRestart:
		return fmt.Errorf("%q is no kind of maintenance", r.Kind)
	case !r.At.IsZero() && r.Kind != api.KindSwitchover:
		return errors.New("only a switchover can be scheduled")
	case !r.At.IsZero() && time.Until(r.At) <= 0:
		return fmt.Errorf("%s is over", r.At.Format(time.RFC3339))
	case r.StepTimeout < 0 || r.MaxTransaction < 0:
		return errors.New("a time below zero")
	case r.ID != "" && !recordName().MatchString("run-"+r.ID+".json"):
		return fmt.Errorf("%q is no id of a run", r.ID)
	case r.WarmUp != "" && strings.TrimSpace(r.WarmUp) == "":
		return errors.New("the warm-up names no program")
	}
	return nil
}

// command is the subcommand of a kind.
func command(kind string) string { return strings.TrimPrefix(kind, "cluster/") }

// run is one run of planned maintenance at work.
type run struct {
	m    *member.Member
	log  *slog.Logger
	tell func(api.ClusterEvent)
	stop <-chan struct{}

	record record
	held   *state.Lock // on the record's file
	lock   *clusterLock
	now    *scene // the last one
	spent  bool   // a wait has lasted for longer than it may
	refuse *plan.Refusal
	missed int   // looks in a row that refused and missed an answer
	wrong  error // why it goes no further
	abort  bool
	left   []plan.Step // when it was stopped
	choice *plan.Choice
}

// Plan says what [Run] would do now, and does nothing: it takes no lock. It looks for 12 s at most, and again where a member does not
// answer. The error is a [*plan.Refusal], or says why the cluster cannot be looked at, or what is wrong with the request.
func Plan(ctx context.Context, m *member.Member, r Request) (plan.Plan, error) {
	if err := r.validate(); err != nil {
		return plan.Plan{}, &invalidError{err}
	}
	var p plan.Plan
	err := patiently(ctx, m, r, func(s *scene) (err error) {
		if r.FromHere {
			r.Switchover.From = s.self
		}
		p, err = plan.Forecast(s.View, nil, r.withDefaults().options())
		return err
	})
	return p, err
}

// invalidError is the request's: exit code 2.
type invalidError struct{ error }

func (e *invalidError) Unwrap() error { return e.error }

// Code is the exit code of an error of [Plan].
func Code(err error) int {
	var refusal *plan.Refusal
	var invalid *invalidError
	var locked *lockedError
	switch {
	case err == nil:
		return member.Done
	case errors.As(err, &invalid), errors.As(err, &refusal) && refusal.ID == plan.InvalidOptions:
		return member.Invalid
	case errors.As(err, &refusal), errors.As(err, &locked):
		return member.Refused
	}
	return member.Failed
}

// Run does planned maintenance and blocks until it is over: takes the cluster's lock, and then, again and again, looks at the cluster,
// has package plan choose the next step, writes it down and does it, until there is none left; then it looks at the cluster for the last
// time, and the report is what that look has found. A cancelled context stops it at once, in the middle of a step; Patroni goes on with
// what it was asked to do. tell is called from one goroutine at a time and must not block for long.
//
// It returns in any case; the report's code is that of package member.
func Run(ctx context.Context, m *member.Member, r Request, tell func(api.ClusterEvent)) api.ClusterReport {
	if r.ID == "" {
		r.ID = state.NewID()
	}
	x := newRun(m, r, tell)
	if err := r.validate(); err != nil {
		x.wrong = &invalidError{err}
		return x.refused()
	}
	sweepRecords(m)
	if x.wrong = patiently(ctx, m, x.record.Request, x.choose); x.wrong != nil {
		return x.refused()
	}
	x.record.Before = x.now.before(lookAtRoutes(ctx, m))
	if err := x.begin(ctx); err != nil {
		x.wrong = err
		return x.refused()
	}
	return x.work(ctx)
}

func newRun(m *member.Member, r Request, tell func(api.ClusterEvent)) *run {
	r = r.withDefaults()
	x := &run{m: m, log: m.Log.With("run", r.ID, "member", m.Name()), tell: tell, stop: r.Stop}
	x.record = record{ID: r.ID, Member: m.Name(), Request: r, State: plan.StatePlanned, Began: time.Now().UTC().Truncate(time.Second)}
	return x
}

// choose says what is to be done, as far as it can be told now; what refuses it is found before the lock is taken.
func (x *run) choose(s *scene) error {
	x.now = s
	x.record.Scope = s.scope
	if x.record.Request.FromHere {
		x.record.Request.Switchover.From = s.self
	}
	if x.record.Request.Kind == api.KindRestart {
		selected, err := x.record.Request.Restart.Select(x.now.View)
		if err != nil {
			return err
		}
		x.record.Request.Restart = selected
	}
	forecast, err := plan.Forecast(x.now.View, nil, x.record.Request.options())
	if err != nil {
		return err
	}
	x.announce(forecast)
	return nil
}

// begin takes the cluster's lock.
func (x *run) begin(ctx context.Context) error {
	client, err := x.m.Patroni()
	if err != nil {
		return err
	}
	// The journal says of a run that it may hold the lock before it does.
	if err := x.save(); err != nil {
		return err
	}
	x.lock = &clusterLock{client: client, log: x.log, id: x.record.ID,
		own: entry{Member: x.record.Member, Kind: x.record.Request.Kind, Since: x.record.Began, Renewed: int(time.Now().Unix())}}
	x.lock.renewed.Store(int64(x.lock.own.Renewed))
	return x.lock.take(ctx, x.dead)
}

// dead reports whether the run of another entry was killed.
func (x *run) dead(id string, e entry) (take bool, killed string) {
	if e.Member == x.record.Member && Dead(x.m, id) {
		return true, ""
	}
	return sighted(x.m, id, e)
}

// event moves the run's state on. A transition that does not exist is a mistake of this package.
func (x *run) event(e plan.Event) {
	next, err := x.record.State.On(e)
	if err != nil {
		x.log.Error("this must not happen: please report it", "error", err)
		next = plan.StateFailing
	}
	x.record.State = next
}

// stopped reports whether it was asked to stop.
func (x *run) stopped() bool {
	select {
	case <-x.stop:
		return true
	default:
		return false
	}
}
