package pgb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// pollInterval is how often the server connections are counted where the answer to PAUSE is no proof.
const pollInterval = 10 * time.Millisecond

// PauseOutcome is what is known of a pause that stands.
type PauseOutcome struct {
	// Already: everything was paused before we came. PgBouncer tells that of a global pause only; of single
	// databases State tells it, before.
	Already bool
}

// loginsTimeout bounds the wait for logins to the server. One takes 5 to 20 ms; the server may also not answer at all.
const (
	loginsTimeout  = 250 * time.Millisecond
	loginsInterval = 2 * time.Millisecond
)

// Pause sends PAUSE and blocks until every server connection is closed. When the context ends first it
// returns a [*NotDrainedError] and the pause stands: Resume takes it back. Any other error means that it is
// not known whether the pooler is paused. Before it sends PAUSE it waits, 0.25 s at most, for logins to the server that are under way.
func (p *Pooler) Pause(ctx context.Context) (PauseOutcome, error) {
	var outcome PauseOutcome
	p.awaitLogins(ctx)
	if err := p.SendPause(ctx); err != nil {
		return outcome, err
	}
	proven, err := p.pauseAnswers(ctx, &outcome)
	if err != nil {
		return outcome, err
	}
	if proven {
		return outcome, nil
	}
	return outcome, p.waitDrained(ctx)
}

// awaitLogins blocks until no login to the server is under way, loginsTimeout at most, and less where the console does not answer. PAUSE
// cuts such a login off; PgBouncer takes that for a server that lets nobody in, and after RESUME it disconnects each client that asks
// before another login has succeeded ("server login has been failing, cached error: pause mode"; objects.c, 1.18 to 1.26).
func (p *Pooler) awaitLogins(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, loginsTimeout)
	defer cancel()
	for ctx.Err() == nil {
		pools, err := p.exec(ctx, "SHOW POOLS")
		if err != nil || p.countPools(pools, "sv_login") == 0 {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(loginsInterval):
		}
	}
}

// SendPause puts PAUSE on its way and returns without waiting for the answer.
func (p *Pooler) SendPause(ctx context.Context) error {
	p.dropHold()
	for _, statement := range p.statements("PAUSE") {
		c, err := p.holdConsole(ctx)
		if err != nil {
			return err
		}
		p.hold = append(p.hold, c)
		if err := c.Send(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pooler) holdConsole(ctx context.Context) (*Console, error) {
	if p.config == nil {
		return nil, &ConsoleError{Pooler: p.Name, Op: "connect", Err: ErrNoConsole}
	}
	if c := p.spare; c.Usable() {
		p.spare = nil
		return c, nil
	}
	return Connect(ctx, p.Name, p.config)
}

// pauseAnswers reads the answers to the PAUSEs. Only the tag PAUSE from all of them proves that the pooler
// is drained.
func (p *Pooler) pauseAnswers(ctx context.Context, outcome *PauseOutcome) (proven bool, err error) {
	proven = true
	for _, c := range p.hold {
		result, err := c.Receive(ctx)
		switch {
		case errors.Is(err, ErrAlreadyPaused):
			outcome.Already, proven = true, false
		case err != nil && ctx.Err() != nil:
			return false, p.notDrained(ctx, -1)
		case err != nil:
			return false, err
		case result.Tag != "PAUSE":
			proven = false
		}
	}
	return proven, nil
}

// notDrained tells how many connections are in the way; the caller's time is over, so it takes a little of its own, and what was seen
// last where that does not do.
func (p *Pooler) notDrained(ctx context.Context, last int) error {
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), 200*time.Millisecond)
	defer cancel()
	active, err := p.ServerConnections(short)
	if err != nil {
		active = last
	}
	return &NotDrainedError{Pooler: p.Name, Active: active}
}

func (p *Pooler) waitDrained(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	last := -1
	for {
		active, err := p.ServerConnections(ctx)
		if err == nil {
			last = active
		}
		switch {
		case err == nil && active == 0:
			return nil
		case ctx.Err() != nil:
			return p.notDrained(ctx, last)
		case err != nil:
			return err
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// resumeRounds bounds how often Resume looks again for a PAUSE that was on its way when it came.
const resumeRounds = 5

// Resume ends the pause that Pause makes, and blocks until the pooler says that it is over. It reports
// whether there was one. A PAUSE of this Pooler that is still under way is abandoned: its answer will not come.
//
// A PAUSE that the pooler has not read yet would come after the RESUME and stand, so Resume looks again
// until it has seen the pooler not paused.
func (p *Pooler) Resume(ctx context.Context) (was bool, err error) {
	p.dropHold()
	for round := range resumeRounds {
		resumed := false
		for _, statement := range p.statements("RESUME") {
			switch _, err := p.exec(ctx, statement); {
			case err == nil:
				resumed, was = true, true
			case !errors.Is(err, ErrNotPaused) && !noSuchDatabase(err):
				return was, err
			}
		}
		state, err := p.State(ctx)
		if err != nil {
			return was, err
		}
		switch {
		case state.NotPaused():
			return was, nil
		case !state.PausedKnown && !resumed && round > 0:
			// 1.18: RESUME found nothing to do, which says the same; but not the first one, which may have
			// overtaken a PAUSE.
			return was, nil
		}
	}
	return was, fmt.Errorf("pooler %s: still paused after %d times RESUME: somebody else pauses it", p.Name, resumeRounds)
}

// noSuchDatabase is the answer to RESUME db when the pooler does not list it: an entry of a "*" line that is not
// in use, as after a restart. Nothing of it is paused, and the next one may be.
func noSuchDatabase(err error) bool {
	var refused *ServerError
	return errors.As(err, &refused) && strings.HasPrefix(refused.Message, "no such database")
}

// ResumeEverything is Resume for a global pause and for every single database that is paused, whoever did it.
func (p *Pooler) ResumeEverything(ctx context.Context) (was bool, err error) {
	mine := p.Databases
	defer func() { p.Databases = mine }()
	p.Databases = nil
	if was, err = p.Resume(ctx); err != nil {
		return was, err
	}
	databases, err := p.ShowDatabases(ctx)
	if err != nil {
		return was, err
	}
	names := slices.Clone(mine) // a paused one need not be listed
	for _, d := range databases {
		if d.Paused && !slices.Contains(names, d.Name) {
			names = append(names, d.Name)
		}
	}
	for _, name := range names {
		switch _, err := p.exec(ctx, "RESUME "+quoteIdentifier(name)); {
		case err == nil:
			was = true
		case !errors.Is(err, ErrNotPaused) && !noSuchDatabase(err):
			return was, err
		}
	}
	return was, nil
}

// Reconnect makes the pooler replace its server connections as they become free. No client sees it.
func (p *Pooler) Reconnect(ctx context.Context) error {
	for _, statement := range p.statements("RECONNECT") {
		if _, err := p.exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}
