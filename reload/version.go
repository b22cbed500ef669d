package reload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/configversion"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/state"
)

// settingSource is a custom setting of Patroni's dynamic configuration, postgresql.parameters. Where the REST API does not
// answer, it is what the server's own files say.
type settingSource struct {
	m       *member.Member
	patroni *patroni.Client
	name    string
}

func (s settingSource) String() string { return "postgresql.parameters." + s.name + " in the DCS" }

// Read asks GET /config, one time restTimeout at most for each of the two places.
func (s settingSource) Read(ctx context.Context) (configversion.Version, error) {
	text, ok, err := s.inDCS(ctx)
	if patroni.Unanswered(err) || patroni.Unreachable(err) {
		var onDisk error
		if text, ok, onDisk = s.onDisk(ctx); onDisk != nil {
			return 0, notYet(errors.Join(err, onDisk))
		}
		err = nil
	}
	switch {
	case patroni.Unauthorized(err):
		return 0, err
	case err != nil:
		return 0, notYet(err)
	case !ok:
		return 0, fmt.Errorf("%s: %w", s, configversion.ErrAbsent)
	}
	v, err := configversion.Parse(text)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", s, err)
	}
	return v, nil
}

// notYet: what a server could not tell now it may tell later.
func notYet(err error) error { return fmt.Errorf("%w: %w", configversion.ErrAbsent, err) }

func (s settingSource) inDCS(ctx context.Context) (string, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, member.RestTimeout)
	defer cancel()
	dynamic, err := s.patroni.Dynamic(ctx)
	if err != nil {
		return "", false, err
	}
	text, ok := dynamic.Setting(s.name)
	return text, ok, nil
}

func (s settingSource) onDisk(ctx context.Context) (text string, ok bool, err error) {
	err = s.m.WithServer(ctx, func(ctx context.Context, conn *postgres.Conn) error {
		text, ok, err = conn.FileSetting(ctx, s.name)
		return err
	})
	return text, ok, err
}

// postgresVersion is where the version of the server's configuration is looked for; nil when nowhere.
func postgresVersion(m *member.Member, client *patroni.Client) configversion.Source {
	v := m.Config.Versions.Postgres
	if v.Setting != "" {
		return settingSource{m: m, patroni: client, name: v.Setting}
	}
	return fileSource(v)
}

func pgbouncerVersion(m *member.Member) configversion.Source {
	return fileSource(m.Config.Versions.PgBouncer)
}

func fileSource(v config.VersionSource) configversion.Source {
	switch {
	case v.File != "":
		return configversion.File{Path: v.File}
	case v.Line != "":
		return configversion.Line{Path: v.Line}
	}
	return nil
}

// givenUp is why a version is not waited for any more: that of another target will not come.
type givenUp struct{ target string }

func (e givenUp) Error() string { return "given up because of " + e.target }

// awaitVersions blocks until every target's version has arrived, or returns a fault: then nothing has been reloaded. Where one will not
// come, the other is not waited for. Without a version asked for, it reads what is there.
func (r *reload) awaitVersions(ctx context.Context, targets map[string]bool) error {
	ctx, cancel := context.WithDeadline(ctx, r.deadline)
	defer cancel()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	sources := map[string]configversion.Source{}
	if targets[api.TargetPostgres] {
		sources[api.TargetPostgres] = postgresVersion(r.m, r.patroni)
	}
	if targets[api.TargetPgBouncer] {
		sources[api.TargetPgBouncer] = pgbouncerVersion(r.m)
	}
	var all sync.WaitGroup
	errs := make([]error, 2)
	for i, target := range []string{api.TargetPostgres, api.TargetPgBouncer} {
		source := sources[target]
		if source == nil {
			continue
		}
		report := &api.VersionReport{Target: target, Source: source.String(), Asked: r.o.Version}
		r.versions[target] = report
		all.Go(func() {
			report.Seen, errs[i] = r.awaitVersion(ctx, source, report)
			if errs[i] != nil {
				report.Error = errs[i].Error()
			}
			if f := (*fault)(nil); errors.As(errs[i], &f) && f.problem == api.ProblemVersionInvalid {
				giveUp(givenUp{target})
			}
		})
	}
	all.Wait()
	return joined(errs)
}

// awaitVersion returns the version that was seen last, nil when none was.
func (r *reload) awaitVersion(ctx context.Context, source configversion.Source, report *api.VersionReport) (*configversion.Version, error) {
	if r.o.Version == nil || r.m.DryRun {
		return r.readVersion(ctx, source, report)
	}
	start := time.Now()
	version, err := configversion.Wait(ctx, source, *r.o.Version, func(v configversion.Version, err error) {
		switch {
		case err == nil && v < *r.o.Version:
			r.say(report.Target, "", "waiting for configuration version %d: %s has %d", *r.o.Version, source, v)
		case errors.Is(err, configversion.ErrAbsent):
			r.say(report.Target, "", "waiting for configuration version %d: %v", *r.o.Version, err)
		case err != nil: // polling alone, or a file that may not be read yet
			r.say(report.Target, "", "%v", err)
		}
	})
	var late *configversion.TimeoutError
	switch {
	case err == nil:
		r.say(report.Target, "", "configuration version %d is there (asked for %d, after %s)", version, *r.o.Version, elapsed(start))
		return &version, nil
	case errors.Is(ctx.Err(), context.Canceled): // the deadline of all is another cause
		fault := &fault{problem: api.ProblemVersionTimeout}
		why := errInterrupted
		if other := (givenUp{}); errors.As(context.Cause(ctx), &other) {
			fault.problem, why = api.ProblemVersionInvalid, other
		}
		fault.err = fmt.Errorf("%s: %w: nothing was reloaded; waited for configuration version %d", report.Target, why, *r.o.Version)
		if errors.As(err, &late) && late.Seen {
			fault.err = fmt.Errorf("%w, %s has %d", fault.err, source, late.Last)
			return &late.Last, fault
		}
		return nil, fault
	case errors.As(err, &late):
		fault := &fault{problem: api.ProblemVersionTimeout, err: fmt.Errorf("%s: nothing was reloaded: %w", report.Target, err)}
		if late.Seen {
			return &late.Last, fault
		}
		return nil, fault
	}
	return nil, &fault{problem: api.ProblemVersionInvalid, err: fmt.Errorf("%s: nothing was reloaded: %w", report.Target, err)}
}

// readVersion looks once: nobody asked for a version, or nothing is to be done.
func (r *reload) readVersion(ctx context.Context, source configversion.Source, report *api.VersionReport) (*configversion.Version, error) {
	version, err := source.Read(ctx)
	absent := errors.Is(err, configversion.ErrAbsent)
	switch {
	case err != nil && !absent:
		return nil, &fault{problem: api.ProblemVersionInvalid, err: fmt.Errorf("%s: nothing was reloaded: %w", report.Target, err)}
	case absent:
		if r.o.Version != nil {
			r.say(report.Target, "", "would wait for configuration version %d: %v", *r.o.Version, err)
		}
		return nil, nil
	case r.o.Version != nil && version < *r.o.Version:
		r.say(report.Target, "", "would wait for configuration version %d: %s has %d", *r.o.Version, source, version)
	}
	return &version, nil
}

func (r *reload) versionReports() []api.VersionReport {
	var reports []api.VersionReport
	for _, target := range []string{api.TargetPostgres, api.TargetPgBouncer} {
		if v := r.versions[target]; v != nil {
			reports = append(reports, *v)
		}
	}
	return reports
}

// Versions looks where the versions stand: wanted, on disk, applied. It asks Patroni and the local server, each for the time of one
// question at most.
func Versions(ctx context.Context, m *member.Member) []api.VersionReport {
	client, err := m.Patroni()
	entries, _ := state.ReadJournal(m.Config.StateDir, 1000)
	var reports []api.VersionReport
	if setting := m.Config.Versions.Postgres.Setting; setting == "" || err == nil {
		if source := postgresVersion(m, client); source != nil {
			v := look(ctx, api.TargetPostgres, source)
			if setting != "" {
				settingStages(ctx, m, setting, &v)
			} else {
				v.OnDisk, v.Applied = v.Seen, lastApplied(entries, api.TargetPostgres)
			}
			reports = append(reports, v)
		}
	}
	if source := pgbouncerVersion(m); source != nil {
		v := look(ctx, api.TargetPgBouncer, source)
		v.OnDisk, v.Applied = v.Seen, lastApplied(entries, api.TargetPgBouncer)
		reports = append(reports, v)
	}
	return reports
}

func look(ctx context.Context, target string, source configversion.Source) api.VersionReport {
	v := api.VersionReport{Target: target, Source: source.String()}
	if seen, err := source.Read(ctx); err != nil {
		v.Error = err.Error()
	} else {
		v.Seen = &seen
	}
	return v
}

// settingStages asks the server what its files and what its memory have.
func settingStages(ctx context.Context, m *member.Member, setting string, v *api.VersionReport) {
	err := m.WithServer(ctx, func(ctx context.Context, conn *postgres.Conn) error {
		for _, stage := range []struct {
			ask func(context.Context, string) (string, bool, error)
			to  **configversion.Version
		}{{conn.FileSetting, &v.OnDisk}, {conn.Setting, &v.Applied}} {
			text, ok, err := stage.ask(ctx, setting)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			version, err := configversion.Parse(text)
			if err != nil {
				return fmt.Errorf("%s: %w", setting, err)
			}
			*stage.to = &version
		}
		return nil
	})
	if err != nil && v.Error == "" {
		v.Error = err.Error()
	}
}

// lastApplied is the version that the last reload has verified, on all poolers; PgBouncer itself cannot tell.
func lastApplied(entries []state.Entry, target string) *configversion.Version {
	run := ""
	var lowest *configversion.Version
	for _, e := range slices.Backward(entries) {
		if e.Hook != "reload" || e.Target != target || e.Event == state.EventNotBegun || run != "" && e.Handover != run {
			continue
		}
		// The last entry is the run's own; without it the run was cut short, or goes on.
		if run == "" && e.Event != state.EventAllReloaded {
			return nil
		}
		run = e.Handover
		if e.Event == state.EventAllReloaded {
			continue
		}
		v, err := configversion.Parse(e.Version)
		if err != nil || e.Event != state.EventReloaded {
			return nil
		}
		if lowest == nil || v < *lowest {
			lowest = &v
		}
	}
	return lowest
}
