package reload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/configversion"
	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/state"
)

const (
	// verifyGrace is what a reload may take beyond loop_wait: Patroni writes the files, the postmaster reads them.
	verifyGrace = 5 * time.Second
	// writeGrace is what Patroni may take beyond loop_wait to write into the files what stands in the DCS.
	writeGrace = 2 * time.Second
	// pendingGrace is how old a reload is when Patroni's list of what waits for a restart is taken as it is.
	pendingGrace = 3 * time.Second
	// ctlTimeout bounds patronictl: Python takes a second to start, and it asks the DCS.
	ctlTimeout = 30 * time.Second
)

// byREST is PostgresReload.How where the REST API has taken the request.
const byREST = "POST /reload"

func (r *reload) postgres(ctx context.Context) (*api.PostgresReload, error) {
	start := time.Now()
	report := &api.PostgresReload{Done: api.ReloadNot}
	err := r.reloadPostgres(ctx, report)
	entry := state.Entry{
		Event:   state.EventReloaded,
		Target:  api.TargetPostgres,
		Took:    time.Since(start),
		Version: versionText(r.versions[api.TargetPostgres]),
	}
	if err != nil {
		report.Error = err.Error()
		entry.Event, entry.Code, entry.Text = state.EventNotReloaded, member.Failed, err.Error()
		err = fmt.Errorf("postgres: %w", err)
	}
	r.journal.Add(entry)
	if err == nil {
		r.journal.Add(state.Entry{Event: state.EventAllReloaded, Target: api.TargetPostgres, Version: entry.Version})
	}
	return report, err
}

func (r *reload) reloadPostgres(ctx context.Context, report *api.PostgresReload) error {
	before, err := r.lookAtPostgres(ctx)
	if ctx.Err() != nil {
		return interrupted(ctx, "")
	}
	if err != nil {
		return &fault{problem: api.ProblemUnreachable, err: fmt.Errorf("nothing was reloaded, the local server cannot be asked: %w", err)}
	}
	report.LoadedBefore = before.loaded
	if err := r.checkPatroniFiles(report); err != nil {
		return err
	}
	if r.m.DryRun {
		report.Done = api.ReloadWould
		return r.wouldReloadPostgres(ctx, report)
	}
	loopWait, known := r.loopWait(ctx)
	before, report.How, err = r.askPatroni(ctx, before)
	report.LoadedBefore = before.loaded
	if ctx.Err() != nil && err != nil {
		if f := (*fault)(nil); errors.As(err, &f) && f.problem == api.ProblemNotVerified {
			report.Done = api.ReloadFailed // it may have been sent
		}
		return err
	}
	if err != nil {
		return &fault{problem: api.ProblemUnreachable, err: fmt.Errorf("nothing was reloaded: %w", err)}
	}
	if known {
		r.say(api.TargetPostgres, "", "%s is sent; Patroni does it within its loop_wait of %s", report.How, loopWait)
	} else {
		r.say(
			api.TargetPostgres,
			"",
			"%s is sent; Patroni does it within its loop_wait, which is not known: waiting %s at most",
			report.How,
			loopWait+verifyGrace,
		)
	}
	report.Done = api.ReloadFailed
	err = r.awaitLoaded(ctx, report, before, loopWait+verifyGrace)
	if f := (*fault)(nil); !known && errors.As(err, &f) {
		f.err = fmt.Errorf("%w; its loop_wait is not known, it may be longer", f.err)
	}
	if ctx.Err() != nil {
		return interrupted(ctx, report.How+" was sent, and whether it has come to effect was not waited for; Patroni may still do it")
	}
	// What the files say is told in both cases: it is why they were not loaded, or what of them was not.
	judged := r.judgeFiles(ctx, report)
	if judged == nil && err == nil {
		judged = r.judgeParameters(ctx, report, loopWait+writeGrace)
	}
	if ctx.Err() != nil {
		return interrupted(ctx, report.How+" was sent and done, and whether all of it was taken was not looked for to the end")
	}
	if judged != nil {
		return judged
	}
	if err != nil {
		return err
	}
	report.Done, report.Verified = api.ReloadDone, true
	r.say(
		api.TargetPostgres,
		"",
		"reloaded: configuration loaded at %s, %d setting(s) wait for a restart",
		report.Loaded.Format(time.RFC3339Nano),
		len(report.PendingRestart),
	)
	return nil
}

// interrupted says how far it came; sent is "" where Patroni was not asked.
func interrupted(ctx context.Context, sent string) error {
	cause := errInterrupted
	if !errors.Is(ctx.Err(), context.Canceled) {
		cause = ctx.Err()
	}
	if sent == "" {
		return &fault{problem: api.ProblemUnreachable, err: fmt.Errorf("%w: nothing was reloaded", cause)}
	}
	return &fault{problem: api.ProblemNotVerified, err: fmt.Errorf("%w: %s", cause, sent)}
}

// serverFiles is what the server has loaded, and what stood there.
type serverFiles struct {
	loaded time.Time // pg_conf_load_time()
	// path is the server's postgresql.conf where we can see it, and "" elsewhere. Patroni writes it anew at every reload, changed or not,
	// and sleeps for 1 s after each (config.py and __main__.py, 4.0.7 and 4.1.5): two of its reloads have different times in every file
	// system. A load of somebody else's (pg_reload_conf()) leaves it as it is.
	path     string
	modified time.Time
}

// lookAtPostgres asks the server, statusTimeout at most. An error is that nothing is known of it.
func (r *reload) lookAtPostgres(ctx context.Context) (seen serverFiles, err error) {
	err = r.m.WithServer(ctx, func(ctx context.Context, conn *postgres.Conn) error {
		if seen.loaded, err = conn.LoadTime(ctx); err != nil {
			return err
		}
		// Its path may be kept from us (pg_read_all_settings), or lie where only the server's container has it.
		path, ok, err := conn.Setting(ctx, "config_file")
		data, known, hidden := conn.Setting(ctx, "data_directory")
		if err != nil || hidden != nil || !ok || !known {
			return nil
		}
		// Another container may have a file of its own at the same place, and no server that runs there.
		if _, err := os.Stat(filepath.Join(data, "postmaster.pid")); err != nil {
			return nil
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			seen.path, seen.modified = path, info.ModTime()
		}
		return nil
	})
	return seen, err
}

// doneByPatroni returns nil when the load at loaded is Patroni's: it has written its file since before. Where that cannot be seen,
// it has looked into the DCS in a later second, which it does after a reload; its cycle that was on the way as the request came
// does so too, and is taken for it.
func (r *reload) doneByPatroni(ctx context.Context, before serverFiles, loaded time.Time) error {
	if before.path != "" {
		// A file that is being replaced may be missing for a moment.
		if info, err := os.Stat(before.path); err == nil && !info.ModTime().Equal(before.modified) {
			return nil
		}
		return fmt.Errorf("%s has not been rewritten", before.path)
	}
	asking, cancel := context.WithTimeout(ctx, member.RestTimeout)
	defer cancel()
	health, err := r.patroni.Leader(asking)
	switch {
	case err != nil:
		return err
	case !health.DCSLastSeen.After(loaded):
		return errors.New("it has not looked into the DCS since")
	}
	return nil
}

// wouldReloadPostgres says by whom, and what stands in the files already.
func (r *reload) wouldReloadPostgres(ctx context.Context, report *api.PostgresReload) error {
	asking, cancel := context.WithTimeout(ctx, member.RestTimeout)
	defer cancel()
	if _, err := r.patroni.Leader(asking); err != nil {
		r.say(api.TargetPostgres, "", "Patroni's REST API: %v", err)
	} else {
		report.How = byREST
	}
	if err := r.judgeFiles(ctx, report); err != nil {
		return err
	}
	return r.judgeParameters(ctx, report, 0)
}

// checkPatroniFiles reads what Patroni is about to read. Of a file that it cannot load it says nothing but in its log, and reloads the
// server with what it had: seen from here, all is well.
func (r *reload) checkPatroniFiles(report *api.PostgresReload) error {
	var files []string
	if file := r.m.Config.Patroni.Config; file != "" {
		files = append(files, filepath.Clean(file))
	}
	// A version's line in YAML is in Patroni's own file: nothing else that the server reads is YAML.
	if file := r.m.Config.Versions.Postgres.Line; slices.Contains([]string{".yml", ".yaml"}, filepath.Ext(file)) {
		files = append(files, filepath.Clean(file))
	}
	var texts []string
	for _, path := range slices.Compact(files) {
		err := patroni.CheckConfig(path)
		if err == nil {
			continue
		}
		wrong := api.FileError{File: path, Problem: err.Error()}
		if at := (*file.Problem)(nil); errors.As(err, &at) {
			wrong = api.FileError(*at) // of a folder, the file in it
		}
		report.FileErrors = append(report.FileErrors, wrong)
		texts = append(texts, wrong.String())
	}
	if texts == nil {
		return nil
	}
	return &fault{
		problem: api.ProblemInvalidFile,
		err:     fmt.Errorf("nothing was reloaded, Patroni would go on with what it had: %s", strings.Join(texts, "; ")),
	}
}

// loopWait is how long Patroni may take to begin. Where it does not tell, it is the default of ttl, which loop_wait is always below.
func (r *reload) loopWait(ctx context.Context) (wait time.Duration, known bool) {
	ctx, cancel := context.WithTimeout(ctx, member.RestTimeout)
	defer cancel()
	if dynamic, err := r.patroni.Dynamic(ctx); err == nil && dynamic.LoopWait > 0 {
		return dynamic.LoopWait, true
	}
	return patroni.DefaultTTL, false
}

// askPatroni asks for the reload in the first way that is open, and returns what the server had right before it was. Patroni refusing us
// is an answer, and no reason to go round it; nor is our own caller's end.
func (r *reload) askPatroni(ctx context.Context, before serverFiles) (_ serverFiles, how string, err error) {
	// What it cannot be asked now it was asked a moment ago.
	look := func() {
		if now, err := r.lookAtPostgres(ctx); err == nil {
			before = now
		}
	}
	const maybe = " was begun, and Patroni may still do it"
	look()
	if ctx.Err() != nil {
		return before, "", interrupted(ctx, "")
	}
	asking, cancel := context.WithTimeout(ctx, member.RestTimeout)
	defer cancel()
	err = r.patroni.Reload(asking)
	if err == nil {
		return before, byREST, nil
	}
	if ctx.Err() != nil {
		return before, "", interrupted(ctx, byREST+maybe)
	}
	if !patroni.Unanswered(err) && !patroni.Unreachable(err) {
		return before, "", err
	}
	r.say(api.TargetPostgres, "", "Patroni's REST API does not answer: %v", err)
	c := r.m.Config.Patroni
	look()
	running, cancelRunning := context.WithTimeout(ctx, ctlTimeout)
	defer cancelRunning()
	ctl := patroni.CtlReload(running, c.Config, c.Scope, c.Name, c.Password)
	if ctl == nil {
		return before, "patronictl reload", nil
	}
	if ctx.Err() != nil {
		return before, "", interrupted(ctx, "patronictl reload"+maybe)
	}
	r.say(api.TargetPostgres, "", "patronictl: %v", ctl)
	process, found := patroni.FindProcess(c.Config)
	if found != nil {
		return before, "", joined([]error{err, ctl, found})
	}
	defer process.Close()
	look()
	if ctx.Err() != nil {
		return before, "", interrupted(ctx, "patronictl reload"+maybe)
	}
	if sent := process.Reload(); sent != nil {
		return before, "", joined([]error{err, ctl, sent})
	}
	return before, fmt.Sprintf("SIGHUP to Patroni, process %d", process.PID), nil
}

// awaitLoaded blocks until the server has loaded its files anew by Patroni and the version is in force, limit at most.
func (r *reload) awaitLoaded(ctx context.Context, report *api.PostgresReload, before serverFiles, limit time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	version := r.versions[api.TargetPostgres]
	setting := r.m.Config.Versions.Postgres.Setting
	start, told := time.Now(), false
	var others error // why the load that was seen is taken for somebody else's
	err := member.Retry(waiting, func() error {
		if time.Since(start) > 2*time.Second && !told {
			told = true
			r.say(api.TargetPostgres, "", "waiting for Patroni to reload, %s at most", limit)
		}
		return r.m.WithServer(waiting, func(ctx context.Context, conn *postgres.Conn) error {
			loaded, err := conn.LoadTime(ctx)
			if err != nil {
				return err
			}
			if !loaded.After(report.LoadedBefore) {
				return fmt.Errorf("the configuration was last loaded at %s, before the reload was asked for", loaded.Format(time.RFC3339))
			}
			report.Loaded = loaded
			if others = r.doneByPatroni(ctx, before, loaded); others != nil {
				return others
			}
			if setting == "" || version.Seen == nil {
				return nil
			}
			text, ok, err := conn.Setting(ctx, setting)
			if err != nil {
				return err
			}
			if !ok {
				return fmt.Errorf("the running server has no %s, and should have %d", setting, *version.Seen)
			}
			applied, err := configversion.Parse(text)
			if err != nil {
				return fmt.Errorf("%s in the running server: %w", setting, err)
			}
			version.Applied = &applied
			if applied < *version.Seen {
				return fmt.Errorf("%s is %d in the running server, not %d", setting, applied, *version.Seen)
			}
			return nil
		})
	}, nil)
	if err == nil && setting == "" && version != nil {
		version.Applied = version.Seen
	}
	if others != nil {
		return &fault{
			problem: api.ProblemNotVerified,
			err: fmt.Errorf(
				"%s was sent, and the server has loaded its files at %s, but within %s Patroni was not seen to do it: %w; "+
					"Patroni's log says why",
				report.How,
				report.Loaded.Format(time.RFC3339Nano),
				limit,
				others,
			),
		}
	}
	if err != nil {
		return &fault{
			problem: api.ProblemNotApplied,
			err:     fmt.Errorf("%s was sent, and it has had no effect within %s: %w; Patroni's log says why", report.How, limit, err),
		}
	}
	return nil
}
