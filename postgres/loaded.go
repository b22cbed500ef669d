package postgres

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// LoadTime is when this session took over the configuration files (pg_conf_load_time()): a session that began after the
// last reload has the postmaster's time. It needs no privilege.
//
// Who polls for a reload must connect anew for each look, because the time is every session's own (PostgreSQL 17, 18).
func (c *Conn) LoadTime(ctx context.Context) (time.Time, error) {
	r, err := c.value(ctx, "select (extract(epoch from pg_conf_load_time()) * 1000000)::bigint")
	if err != nil {
		return time.Time{}, err
	}
	t := r.time()
	return t, r.err
}

// settingName is what a name in a configuration file may be; nothing in it needs quoting.
var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]{0,62}(\.[A-Za-z_][A-Za-z0-9_$]{0,62}){0,3}$`)

func checkName(name string) error {
	if !settingName.MatchString(name) {
		return fmt.Errorf("postgres: %.80q is not the name of a setting", name)
	}
	return nil
}

// Setting is what a setting is in this session, with unit ("16MB"); ok is false where there is none of that name. Custom
// ones (pgbaton.config_version) are settings as others. Some may be read only with pg_read_all_settings: [Denied].
// As with [Conn.LoadTime], connect anew to see what was reloaded.
func (c *Conn) Setting(ctx context.Context, name string) (value string, ok bool, err error) {
	if err := checkName(name); err != nil {
		return "", false, err
	}
	r, err := c.value(ctx, "select current_setting('"+name+"', true)")
	if err != nil {
		return "", false, err
	}
	ok = r.cols[0] != nil
	return r.text(), ok, nil
}

// FileSetting is what the files say on disk now, in the entry that counts, which is the last; loaded or not, and
// as it is written there. ok is false when no file sets it. It needs the rights of [Conn.FileErrors]; a
// [*GrantError] says which are missing.
func (c *Conn) FileSetting(ctx context.Context, name string) (value string, ok bool, err error) {
	if err := checkName(name); err != nil {
		return "", false, err
	}
	if err := c.mayRead(ctx, fileSettings); err != nil {
		return "", false, err
	}
	results, err := c.query(ctx, "select setting from pg_file_settings where lower(name) = lower('"+name+"') order by seqno desc limit 1")
	if err != nil {
		return "", false, err
	}
	r, err := rows(results, 0, 1)
	if err != nil || len(r) == 0 {
		return "", false, err
	}
	return r[0].text(), true, nil
}

// FileError is a line of a configuration file that the server does not take.
type FileError struct {
	File    string // as the server calls it
	Line    int    // from 1; 0: the file as a whole
	Name    string // of the setting; empty for a line that is none, and in pg_hba.conf and pg_ident.conf
	Problem string // the server's words, without values that may be secrets
}

func (e *FileError) Error() string {
	s := e.File
	if e.Line > 0 {
		s += fmt.Sprintf(":%d", e.Line)
	}
	if e.Name != "" {
		s += ": " + e.Name
	}
	return s + ": " + e.Problem
}

// GrantError says that this user may not look at what the server thinks of its files. [Denied] holds for it.
type GrantError struct {
	User    string
	Views   []string // that it may not read
	Missing []string // SQL that a superuser can run, in each database that we connect to
}

func (e *GrantError) Error() string {
	return fmt.Sprintf("postgres: user %q may not read %s; a superuser can allow it: %s", e.User, strings.Join(e.Views, ", "), strings.Join(e.Missing, "; "))
}

// view is a view of the server's files, and the function below it. Both are for superusers only until they are granted,
// the function too: a view's functions run with the rights of who asks (17, 18).
type view struct{ name, function string }

var (
	fileSettings = view{"pg_file_settings", "pg_show_all_file_settings()"}
	hbaRules     = view{"pg_hba_file_rules", "pg_hba_file_rules()"}
	identMaps    = view{"pg_ident_file_mappings", "pg_ident_file_mappings()"} // since 15
)

// mayRead returns nil or a *GrantError. Asked beforehand: a file that the server may not open has the same SQLSTATE
// as a missing privilege.
func (c *Conn) mayRead(ctx context.Context, views ...view) error {
	e := &GrantError{}
	var sql strings.Builder
	sql.WriteString("select current_user, quote_ident(current_user)")
	for _, v := range views {
		fmt.Fprintf(&sql, ", has_table_privilege('pg_catalog.%s', 'select'), has_function_privilege('pg_catalog.%s', 'execute')", v.name, v.function)
	}
	results, err := c.query(ctx, sql.String())
	if err != nil {
		return err
	}
	r, err := rows(results, 0, 2+2*len(views))
	if err != nil || len(r) != 1 {
		return errors.Join(err, errors.New("postgres: no answer to has_table_privilege()"))
	}
	e.User = r[0].text()
	role := r[0].text()
	for _, v := range views {
		table, function := r[0].bool(), r[0].bool()
		if !table {
			e.Missing = append(e.Missing, fmt.Sprintf("GRANT SELECT ON pg_catalog.%s TO %s", v.name, role))
		}
		if !function {
			e.Missing = append(e.Missing, fmt.Sprintf("GRANT EXECUTE ON FUNCTION pg_catalog.%s TO %s", v.function, role))
		}
		if !table || !function {
			e.Views = append(e.Views, v.name)
		}
	}
	if len(e.Missing) > 0 {
		return e
	}
	return nil
}

// FileErrors lists what the server does not take of its files as they are on disk now: postgresql.conf and what it
// includes, pg_hba.conf, and from 15 on pg_ident.conf. A setting that only waits for a restart is none; see
// [Conn.PendingRestart]. What this user may not read is told by a [*GrantError] beside what could be read. It blocks for up to
// 6 round trips. PostgreSQL reads the files for it in this session; nothing is loaded.
func (c *Conn) FileErrors(ctx context.Context) ([]FileError, error) {
	r, err := c.value(ctx, "select current_setting('server_version_num')")
	if err != nil {
		return nil, err
	}
	version := int(r.int())
	if r.err != nil {
		return nil, r.err
	}
	var out []FileError
	denied := &GrantError{}
	ask := func(v view, read func() ([]FileError, error)) error {
		err := c.mayRead(ctx, v)
		var grant *GrantError
		if errors.As(err, &grant) {
			denied.User, denied.Views, denied.Missing = grant.User, append(denied.Views, grant.Views...), append(denied.Missing, grant.Missing...)
			return nil
		}
		if err != nil {
			return err
		}
		found, err := read()
		out = append(out, found...)
		return err
	}
	err = ask(fileSettings, func() ([]FileError, error) { return c.settingErrors(ctx) })
	if err == nil {
		err = ask(hbaRules, func() ([]FileError, error) { return c.authErrors(ctx, hbaRules, "hba_file", version) })
	}
	if err == nil && version >= 150000 {
		err = ask(identMaps, func() ([]FileError, error) { return c.authErrors(ctx, identMaps, "ident_file", version) })
	}
	if err == nil && len(denied.Missing) > 0 {
		err = denied
	}
	return out, err
}

// settingErrors leaves out what only waits for a restart. pg_file_settings has the same words for it as for a
// value that is wrong; but reading it marks the setting as pending in this session's pg_settings if the value can be had
// by a restart. So the order of the two counts.
func (c *Conn) settingErrors(ctx context.Context) ([]FileError, error) {
	results, err := c.query(ctx, `select coalesce(sourcefile, ''), sourceline, coalesce(name, ''), error from pg_file_settings where error is not null order by seqno;
select name from pg_settings where pending_restart`)
	if err != nil {
		return nil, err
	}
	all, err := rows(results, 0, 4)
	if err != nil {
		return nil, err
	}
	marked, err := rows(results, 1, 1)
	if err != nil {
		return nil, err
	}
	pending := map[string]bool{}
	for _, r := range marked {
		pending[strings.ToLower(r.text())] = true
	}
	var out []FileError
	for _, r := range all {
		e := FileError{File: r.text(), Line: int(r.int()), Name: r.text(), Problem: oneLine(r.text())}
		if r.err != nil {
			return nil, r.err
		}
		if !pending[strings.ToLower(e.Name)] {
			out = append(out, e)
		}
	}
	return out, nil
}

func (c *Conn) authErrors(ctx context.Context, v view, setting string, version int) ([]FileError, error) {
	// In pg_settings a file's name is just not there for who may not see it; current_setting() would fail.
	file := "(select setting from pg_settings where name = '" + setting + "')"
	if version >= 160000 {
		file = "coalesce(file_name, " + file + ")"
	}
	results, err := c.query(ctx, "select coalesce("+file+", '"+setting+"'), line_number, error from "+v.name+" where error is not null order by 1, 2")
	if unreadable := (*pgconn.PgError)(nil); errors.As(err, &unreadable) && (strings.HasPrefix(unreadable.Code, "58") || unreadable.Code == "42501" || unreadable.Code == "F0000") {
		name, _, asked := c.Setting(ctx, setting)
		if asked != nil {
			name = setting
		}
		return []FileError{{File: name, Problem: oneLine(unreadable.Message)}}, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := rows(results, 0, 3)
	if err != nil {
		return nil, err
	}
	var out []FileError
	for _, r := range all {
		e := FileError{File: r.text(), Line: int(r.int()), Problem: withoutValues(oneLine(r.text()))}
		if r.err != nil {
			return nil, r.err
		}
		out = append(out, e)
	}
	return out, nil
}

var quoted = regexp.MustCompile(`"[^"]*"`)

// withoutValues takes out of an error of pg_hba.conf what may be a secret, such as an ldapbindpasswd with a blank in place
// of its "=".
func withoutValues(problem string) string {
	if before, _, ok := strings.Cut(problem, "not in name=value format: "); ok {
		return before + "not in name=value format"
	}
	for _, harmless := range []string{"invalid authentication method", "invalid connection type", "unrecognized authentication option name", "could not open"} {
		if strings.HasPrefix(problem, harmless) {
			return problem
		}
	}
	return quoted.ReplaceAllString(problem, `"***"`)
}

// oneLine keeps a text of the server fit for a log line.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}

// PendingRestart is a setting that takes effect with the next restart.
type PendingRestart struct {
	Name    string
	Running string // with unit
	File    string // as it is written; empty when no file sets it any more, or this user may not read pg_file_settings
}

// PendingRestart lists the settings whose value in the files needs a restart (pg_settings.pending_restart), as they were
// when this session took over the files: connect anew after a reload. Those that this user may not see are left out
// (pg_read_all_settings shows them).
func (c *Conn) PendingRestart(ctx context.Context) ([]PendingRestart, error) {
	results, err := c.query(ctx, "select name, coalesce(current_setting(name, true), '') from pg_settings where pending_restart order by name")
	if err != nil {
		return nil, err
	}
	all, err := rows(results, 0, 2)
	if err != nil {
		return nil, err
	}
	var out []PendingRestart
	for _, r := range all {
		p := PendingRestart{Name: r.text(), Running: r.text()}
		var denied *GrantError
		if p.File, _, err = c.FileSetting(ctx, p.Name); err != nil && !errors.As(err, &denied) {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}
