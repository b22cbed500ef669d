package reload

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/configversion"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/postgres"
)

// judgeFiles lists what the server found wrong in its files, and what waits for a restart.
func (r *reload) judgeFiles(ctx context.Context, report *api.PostgresReload) error {
	version := r.versions[api.TargetPostgres]
	setting := r.m.Config.Versions.Postgres.Setting
	err := r.m.WithServer(ctx, func(ctx context.Context, conn *postgres.Conn) error {
		pending, err := conn.PendingRestart(ctx)
		if err != nil {
			return err
		}
		for _, p := range pending {
			report.PendingRestart = append(report.PendingRestart, api.PendingSetting{Name: p.Name, Running: p.Running, File: p.File})
		}
		if setting != "" && version != nil {
			if text, ok, err := conn.FileSetting(ctx, setting); err == nil && ok {
				if v, err := configversion.Parse(text); err == nil {
					version.OnDisk = &v
				}
			}
		}
		wrong, err := conn.FileErrors(ctx)
		for _, e := range wrong {
			report.FileErrors = append(report.FileErrors, api.FileError(e))
		}
		return err
	})
	if err != nil {
		return &fault{problem: api.ProblemNotVerified, err: fmt.Errorf("it cannot be verified that the files are valid: %w", err)}
	}
	r.pendingByPatroni(ctx, report)
	return invalidFiles(report.FileErrors)
}

// invalidFiles is what the list of errors makes of the reload.
func invalidFiles(wrong []api.FileError) error {
	if len(wrong) == 0 {
		return nil
	}
	texts := make([]string, len(wrong))
	for i, e := range wrong {
		texts[i] = e.String()
	}
	return &fault{problem: api.ProblemInvalidFile, err: errors.New(strings.Join(texts, "; "))}
}

// neverWritten are parameters that Patroni never writes into the files as they stand in the DCS: it has better values, or a place of
// their own for them (config.py, 4.0.7 and 4.1.5).
var neverWritten = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(
		`(?i)^(synchronous_standby_names|wal_keep_(segments|size)|recovery_.*|restore_command|archive_cleanup_command|` +
			`primary_conninfo|primary_slot_name|(promote_)?trigger_file|standby_mode|pause_at_recovery_target)$`,
	)
})

// judgeParameters lists what stands in the DCS and, after wait, in none of the server's files. Patroni leaves out what it knows to be
// wrong, and the rest, a configuration version too, comes into force (validator.py, 4.0.7 and 4.1.5). It may also see a change
// in the DCS only in the loop after the one in which it reloaded.
//
// Where the reload had to go another way than the REST API, nobody can be asked for the DCS. That is said, and is no failure: what was
// asked for is done.
func (r *reload) judgeParameters(ctx context.Context, report *api.PostgresReload, wait time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		names, err := r.notInFiles(ctx)
		switch {
		case err == nil && len(names) == 0:
			return nil
		case report.How != byREST && (patroni.Unanswered(err) || patroni.Unreachable(err)):
			r.notSeen = "whether Patroni has left out a setting of the DCS was not seen: its REST API does not answer"
			r.log.Warn(r.notSeen, "target", api.TargetPostgres, "error", err)
			r.progress(api.TargetPostgres, "", r.notSeen)
			return nil
		case waiting.Err() == nil:
			member.Sleep(waiting, 500*time.Millisecond) // the server reads all of its files for each look
			continue
		case err != nil:
			return &fault{
				problem: api.ProblemNotVerified,
				err:     fmt.Errorf("it cannot be verified that Patroni applied every setting of the DCS: %w", err),
			}
		}
		for _, name := range names {
			report.FileErrors = append(report.FileErrors, api.FileError{
				File: "postgresql.parameters in the DCS",
				Name: name,
				Problem: "Patroni has not written it into postgresql.conf: its value is not valid, or this version of PostgreSQL " +
					"has no such setting; Patroni's log says which",
			})
		}
		return invalidFiles(report.FileErrors)
	}
}

func (r *reload) notInFiles(ctx context.Context) (names []string, err error) {
	asking, cancel := context.WithTimeout(ctx, member.RestTimeout)
	defer cancel()
	dynamic, err := r.patroni.Dynamic(asking)
	if err != nil {
		return nil, err
	}
	server, _ := dynamic.Raw["postgresql"].(map[string]any)
	parameters, _ := server["parameters"].(map[string]any)
	var written map[string]bool
	err = r.m.WithServer(ctx, func(ctx context.Context, conn *postgres.Conn) error {
		written, err = conn.FileSettingNames(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		if _, set := dynamic.Setting(name); set && !neverWritten().MatchString(name) && !written[strings.ToLower(name)] {
			names = append(names, name)
		}
	}
	return names, nil
}

// pendingByPatroni adds what Patroni knows: it gives some parameters (max_connections and its like) on the command line, and the
// server sees the file's differ only once it has reloaded (17 and 18).
func (r *reload) pendingByPatroni(ctx context.Context, report *api.PostgresReload) {
	health, err := r.healthAfter(ctx, report.Loaded)
	if err != nil {
		return
	}
	for name, change := range health.PendingRestartReason {
		if !slices.ContainsFunc(report.PendingRestart, func(p api.PendingSetting) bool { return p.Name == name }) {
			report.PendingRestart = append(report.PendingRestart, api.PendingSetting{Name: name, Running: change.Old, File: change.New})
		}
	}
	if health.PendingRestart && len(report.PendingRestart) == 0 {
		report.PendingRestart = []api.PendingSetting{{Name: "(Patroni says that a restart is pending, and not why)"}}
	}
	slices.SortFunc(report.PendingRestart, func(a, b api.PendingSetting) int { return strings.Compare(a.Name, b.Name) })
}

// healthAfter asks Patroni, and again while its list of what waits for a restart is from before the reload: it sleeps for 1 s after each,
// makes the list, and then looks into the DCS (config.py and __main__.py, 4.0.7 and 4.1.5).
func (r *reload) healthAfter(ctx context.Context, loaded time.Time) (patroni.Health, error) {
	for {
		asking, cancel := context.WithTimeout(ctx, member.RestTimeout)
		health, err := r.patroni.Leader(asking)
		cancel()
		if err != nil || loaded.IsZero() || health.DCSLastSeen.After(loaded) || time.Since(loaded) > pendingGrace || ctx.Err() != nil {
			return health, err
		}
		member.Sleep(ctx, 50*time.Millisecond)
	}
}

// versionText is the version for the journal.
func versionText(v *api.VersionReport) string {
	if v == nil || v.Seen == nil {
		return ""
	}
	return fmt.Sprint(uint64(*v.Seen))
}
