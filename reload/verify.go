package reload

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/configversion"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

// readFile is the pooler's file as it is now; nil when it cannot be seen.
func (x *poolerReload) readFile() (*pgbini.File, error) {
	if x.path == "" {
		return nil, nil
	}
	x.report.File = x.path
	return pgbini.ReadFile(x.path, x.root)
}

// check finds what must not be reloaded. Of a file with a line that this PgBouncer refuses, what stands before the line comes into force,
// and the rest of [pgbouncer] goes back to the defaults. A logfile that cannot be opened ends the process at its next line of log; without
// its hba file nobody can log in, and without its certificates TLS with clients is what it was; those for servers are not read before a
// connection is made, which then fails (all 1.18 to 1.26). What the file does not say has the version's default: server_tls_sslmode is
// prefer in 1.24 and 1.26, and disable in 1.18.
func (x *poolerReload) check(file *pgbini.File) error {
	if file == nil {
		return nil
	}
	check := file.CheckAny
	if x.console != nil {
		check = func() error { return file.Check(x.before) }
	}
	if err := check(); err != nil || x.process == nil {
		return err
	}
	is := func(key, value string) bool { return strings.EqualFold(file.InForce(key, x.before), value) }
	on := func(key string) bool { return file.InForce(key, x.before) != "" && !is(key, "disable") }
	for _, need := range []struct {
		key       string
		appending bool
		counts    bool
		harm      string
	}{
		{"logfile", true, true, "PgBouncer would end at its next line of log"},
		{"auth_hba_file", false, is("auth_type", "hba"), "nobody could log in"},
		{"client_tls_key_file", false, on("client_tls_sslmode"), "TLS would stay what it was"},
		{"client_tls_cert_file", false, on("client_tls_sslmode"), "TLS would stay what it was"},
		{"client_tls_ca_file", false, on("client_tls_sslmode"), "TLS would stay what it was"},
		{"server_tls_key_file", false, on("server_tls_sslmode"), "new server connections with TLS would fail"},
		{"server_tls_cert_file", false, on("server_tls_sslmode"), "new server connections with TLS would fail"},
		{"server_tls_ca_file", false, on("server_tls_sslmode"), "new server connections with TLS would fail"},
	} {
		value, at, line, ok := file.Setting(need.key)
		if !ok || value == "" || !need.counts {
			continue
		}
		if err := x.process.Opens(value, need.appending); err != nil {
			return fmt.Errorf("%s:%d: %s: %w; %s", at, line, need.key, err, need.harm)
		}
	}
	return nil
}

// verify compares what runs with what the file says now, until it is the same or effectTimeout is over.
func (x *poolerReload) verify(ctx context.Context) error {
	if x.refused != nil && x.HasConsole() {
		opening, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
		err := x.Open(opening)
		cancel()
		if err == nil {
			x.console = x.Pooler // the reload has mended what was wrong with the password
		}
	}
	if x.console == nil {
		x.report.Done = api.ReloadSignaled
		return x.notVerified("no console answers: " + x.refused.Error())
	}
	file, err := x.readFile()
	if err != nil {
		return &fault{problem: api.ProblemInvalidFile, err: fmt.Errorf("after %s: %w", x.report.How, err)}
	}
	x.late = x.behind(file)
	showing, cancel := context.WithTimeout(ctx, effectTimeout)
	defer cancel()
	for {
		after, databases, err := x.running(ctx)
		if err != nil {
			return x.notVerified(err.Error())
		}
		if x.report.Changed = changes(x.before, after); changed(x.report.Changed, "logfile") {
			// It opens the file with its next line of log, which a log-in is.
			x.console.Close()
			if _, _, err := x.running(ctx); err != nil {
				return &fault{
					problem: api.ProblemNotApplied,
					err: fmt.Errorf(
						"after %s it does not answer any more; its logfile has changed, and PgBouncer ends where it cannot open it: %w",
						x.report.How,
						err,
					),
				}
			}
		}
		if file == nil {
			return x.byAnswer(ctx, after)
		}
		x.report.NotApplied, x.report.NeedsRestart = sorted(file.Diff(after, databases))
		if len(x.report.NotApplied) == 0 {
			if x.late != nil {
				x.report.Done = api.ReloadFailed
				return &fault{problem: api.ProblemNotApplied, err: fmt.Errorf("after %s: %w", x.report.How, x.late)}
			}
			return x.verified(ctx, after)
		}
		// An answer is the end of the matter; a signal's effect may be on its way.
		if x.refused == nil || showing.Err() != nil {
			texts := make([]string, len(x.report.NotApplied))
			for i, d := range x.report.NotApplied {
				texts[i] = d.String()
			}
			return &fault{problem: api.ProblemNotApplied, err: fmt.Errorf("after %s: %s", x.report.How, strings.Join(texts, ", "))}
		}
		member.Sleep(showing, 50*time.Millisecond)
	}
}

// behind says what the pooler's own file lacks of the version that was waited for in another one. Only a line stands in the configuration
// itself.
func (x *poolerReload) behind(file *pgbini.File) error {
	line := x.m.Config.Versions.PgBouncer.Line
	if file == nil || x.o.Version == nil || line == "" || x.root == "" && filepath.Clean(x.path) == filepath.Clean(line) {
		return nil
	}
	for _, path := range file.Paths() {
		version, err := configversion.InText(path, file.Comments(path))
		switch {
		case errors.Is(err, configversion.ErrAbsent):
			continue
		case err != nil:
			return fmt.Errorf("its own file: %w", err)
		case version < *x.o.Version:
			return fmt.Errorf("its own file %s has config-version %d, not %d", path, version, *x.o.Version)
		}
		return nil
	}
	if filepath.Base(x.path) != filepath.Base(line) {
		return nil // the line stands in another kind of file, such as userlist.txt, of which the pooler's copy is not known
	}
	return fmt.Errorf("its own file %s has no config-version line", x.path)
}

// byAnswer judges a reload by its answer alone, which since 1.25 is an error for a file that could not be read to its end.
func (x *poolerReload) byAnswer(ctx context.Context, after []pgbini.Setting) error {
	x.report.Done = api.ReloadDone
	why := x.report.NotVerified
	if x.o.Version != nil || x.refused != nil || !answersForTheFile(x.version) {
		return x.notVerified(why)
	}
	x.report.NotVerified = ""
	return x.verified(ctx, after)
}

// answersForTheFile reports whether this version's RELOAD answers an error for a bad file.
func answersForTheFile(version string) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return err1 == nil && err2 == nil && (major > 1 || major == 1 && minor >= 25)
}

// verified: with so_reuseport the console may be any one of several processes.
func (x *poolerReload) verified(ctx context.Context, after []pgbini.Setting) error {
	x.report.Done = api.ReloadDone
	if reuse := setting(after, "so_reuseport"); reuse != "" && reuse != "0" && x.console == x.Pooler {
		counting, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
		defer cancel()
		one, err := x.OneProcess(counting)
		if err != nil {
			return x.notVerified("so_reuseport is on, and whether other processes share this port cannot be seen: " + err.Error())
		}
		if !one {
			return x.notVerified("so_reuseport is on, and other processes share this port: give each one's Unix socket as dsn")
		}
	}
	x.report.Verified, x.report.NotVerified = true, ""
	return nil
}

func (x *poolerReload) notVerified(why string) error {
	x.report.NotVerified = why
	return &fault{
		problem: api.ProblemNotVerified,
		err:     fmt.Errorf("%s was sent, and it cannot be verified that it was applied: %s", x.report.How, why),
	}
}

// running asks the console for what is in force.
func (x *poolerReload) running(ctx context.Context) ([]pgbini.Setting, []pgbini.Database, error) {
	ctx, cancel := context.WithTimeout(ctx, member.ConsoleTimeout)
	defer cancel()
	settings, err := x.console.Settings(ctx)
	if err != nil {
		return nil, nil, err
	}
	databases, err := x.console.ShowDatabases(ctx)
	return settings, databases, err
}

func changed(differences []api.SettingDifference, key string) bool {
	for _, d := range differences {
		if d.Key == key {
			return true
		}
	}
	return false
}
