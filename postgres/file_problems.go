package postgres

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/file"
)

// GrantError says that this user may not look at what the server thinks of its files. [Denied] holds for it.
type GrantError struct {
	User    string
	Views   []string // that it may not read
	Missing []string // SQL that a superuser can run, in each database that we connect to
}

func (e *GrantError) Error() string {
	return fmt.Sprintf(
		"postgres: user %q may not read %s; a superuser can allow it: %s",
		e.User,
		strings.Join(e.Views, ", "),
		strings.Join(e.Missing, "; "),
	)
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
		fmt.Fprintf(
			&sql,
			", has_table_privilege('pg_catalog.%s', 'select'), has_function_privilege('pg_catalog.%s', 'execute')",
			v.name,
			v.function,
		)
	}
	results, err := c.query(ctx, sql.String())
	if err != nil {
		return err
	}
	r, err := rows(results, 0, 2+2*len(views))
	if err != nil || len(r) != 1 {
		return errors.Join(err, errors.New("postgres: no answer to has_table_privilege()"))
	}
	e.User = r[0].shown()
	role := r[0].shown()
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

// FileErrors lists what the server does not take of its files as they are on disk now: postgresql.conf and what it includes, pg_hba.conf,
// and from 15 on pg_ident.conf. A setting that only waits for a restart is none; see [Conn.PendingRestart]. Nor is a line of pg_hba.conf
// that is loaded and cannot match, such as hostssl with ssl = off. What this user may not read is told by a [*GrantError] beside what
// could be read. It blocks for up to 6 round trips. PostgreSQL reads the files for it in this session; nothing is loaded.
func (c *Conn) FileErrors(ctx context.Context) ([]file.Problem, error) {
	r, err := c.value(ctx, "select current_setting('server_version_num')")
	if err != nil {
		return nil, err
	}
	version := int(r.int())
	if r.err != nil {
		return nil, r.err
	}
	var out []file.Problem
	denied := &GrantError{}
	ask := func(v view, read func() ([]file.Problem, error)) error {
		err := c.mayRead(ctx, v)
		var grant *GrantError
		if errors.As(err, &grant) {
			denied.User, denied.Views, denied.Missing = grant.User, append(
				denied.Views,
				grant.Views...), append(
				denied.Missing,
				grant.Missing...)
			return nil
		}
		if err != nil {
			return err
		}
		found, err := read()
		out = append(out, found...)
		return err
	}
	err = ask(fileSettings, func() ([]file.Problem, error) { return c.settingErrors(ctx) })
	if err == nil {
		err = ask(hbaRules, func() ([]file.Problem, error) { return c.authErrors(ctx, hbaRules, "hba_file", "type", version) })
	}
	if err == nil && version >= 150000 {
		err = ask(identMaps, func() ([]file.Problem, error) { return c.authErrors(ctx, identMaps, "ident_file", "map_name", version) })
	}
	if err == nil && len(denied.Missing) > 0 {
		err = denied
	}
	return out, err
}

// settingErrors leaves out what only waits for a restart. pg_file_settings has the same words for it as for a value that is wrong; but
// reading it marks the setting as pending in this session's pg_settings if its value needs a restart and could be read. So the order of
// the two counts. The mark stays when the value becomes a wrong one later, with which the server would not start again: a value that
// cannot be right is an error all the same. Values are read for that only, and not shown.
func (c *Conn) settingErrors(ctx context.Context) ([]file.Problem, error) {
	results, err := c.query(ctx, `select coalesce(sourcefile, ''), sourceline, coalesce(name, ''), error,
 case when lower(name) in (select lower(name) from pg_settings where context = 'postmaster') then setting end
 from pg_file_settings where error is not null order by seqno;
select name, pending_restart, vartype, coalesce(min_val, ''), coalesce(max_val, ''), coalesce(unit, ''),
 coalesce(array_to_string(enumvals, ', '), '') from pg_settings`)
	if err != nil {
		return nil, err
	}
	all, err := rows(results, 0, 5)
	if err != nil {
		return nil, err
	}
	settings, err := rows(results, 1, 7)
	if err != nil {
		return nil, err
	}
	known := make(map[string]kind, len(settings))
	for _, r := range settings {
		known[strings.ToLower(r.text())] = kind{
			pending: r.bool(),
			typ:     r.text(),
			min:     r.text(),
			max:     r.text(),
			unit:    r.text(),
			words:   r.text(),
		}
	}
	var out []file.Problem
	for _, r := range all {
		e := file.Problem{File: r.shown(), Line: int(r.int()), Name: r.text(), Problem: oneLine(r.shown())}
		if r.err != nil {
			return nil, r.err
		}
		// "parameter "shared_buffers" cannot be changed without restarting the server": of one that stands in no file any more.
		if e.File == "" && e.Name == "" {
			if _, rest, _ := strings.Cut(e.Problem, `"`); known[strings.ToLower(rest[:max(0, strings.Index(rest, `"`))])].pending {
				continue
			}
		}
		k, ok := known[strings.ToLower(e.Name)]
		if ok && k.pending && (r.cols[0] == nil || k.mayBe(r.text())) {
			continue
		}
		if ok && e.Problem == "setting could not be applied" {
			e.Problem += k.hint()
		}
		out = append(out, e)
	}
	return out, nil
}

// kind is what pg_settings knows of a setting.
type kind struct {
	pending                    bool
	typ, min, max, unit, words string
}

var (
	number = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(
			`^\s*([-+]?(?:0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?))\s*(B|kB|MB|GB|TB|us|ms|s|min|h|d)?\s*$`,
		)
	})
	yesNo = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?i)^\s*(t(r(ue?)?)?|f(a(l(se?)?)?)?|y(es?)?|no?|on|off?|1|0)\s*$`)
	})
)

// mayBe is false for a value that the server surely refuses.
func (k kind) mayBe(value string) bool {
	switch k.typ {
	case "bool":
		return yesNo().MatchString(value)
	case "integer", "real":
		m := number().FindStringSubmatch(value)
		if m == nil {
			return false
		}
		n, err := strconv.ParseFloat(m[1], 64)
		low, noLow := strconv.ParseFloat(k.min, 64)
		high, noHigh := strconv.ParseFloat(k.max, 64)
		// With a unit of its own, or in hexadecimal, it is left to the server.
		return err != nil || m[2] != "" || noLow != nil || noHigh != nil || n >= low-1 && n <= high+1
	}
	return true
}

// hint is what the setting takes; the server's own words do not tell.
func (k kind) hint() string {
	switch {
	case k.typ == "bool":
		return "; it is on or off"
	case k.words != "":
		return "; it is one of " + oneLine(k.words)
	case k.min != "" && k.unit != "":
		return fmt.Sprintf("; it is a number from %s to %s in units of %s, or one with a unit", k.min, k.max, k.unit)
	case k.min != "":
		return fmt.Sprintf("; it is a number from %s to %s", k.min, k.max)
	}
	return ""
}

// authErrors are the lines without the column that every line has which the server could make something of. Others may have an error too,
// and are loaded: "hostssl record cannot match because SSL is disabled" (hba.c, 15 to 18). And a line may be refused for
// a reason that stands in the server's log only.
func (c *Conn) authErrors(ctx context.Context, v view, setting, parsed string, version int) ([]file.Problem, error) {
	// In pg_settings a file's name is just not there for who may not see it; current_setting() would fail.
	path := "(select setting from pg_settings where name = '" + setting + "')"
	if version >= 160000 {
		path = "coalesce(file_name, " + path + ")"
	}
	results, err := c.query(
		ctx,
		"select coalesce("+path+", '"+setting+"'), line_number,"+
			" case when error like '%record cannot match because%' then null else error end from "+
			v.name+" where "+parsed+" is null order by 1, 2",
	)
	if unreadable := (*pgconn.PgError)(
		nil,
	); errors.As(err, &unreadable) &&
		(strings.HasPrefix(unreadable.Code, "58") || unreadable.Code == "42501" || unreadable.Code == "F0000") {
		name, _, asked := c.Setting(ctx, setting)
		if asked != nil {
			name = setting
		}
		return []file.Problem{{File: name, Problem: oneLine(unreadable.Message)}}, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := rows(results, 0, 3)
	if err != nil {
		return nil, err
	}
	var out []file.Problem
	for _, r := range all {
		e := file.Problem{File: r.shown(), Line: int(r.int()), Problem: withoutValues(oneLine(r.shown()))}
		if r.err != nil {
			return nil, r.err
		}
		if e.Problem == "" {
			e.Problem = "not taken; the server's log says why"
		}
		out = append(out, e)
	}
	return out, nil
}

var quoted = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`"[^"]*"|“[^”]*”|„[^“”]*[“”]|»[^«]*«|«[^»]*»`)
})

// withoutValues takes out of an error of pg_hba.conf what may be a secret, such as an ldapbindpasswd with a blank in place
// of its "=". Whole are only texts that are known to have none; in other languages none is known.
func withoutValues(problem string) string {
	for _, harmless := range []string{
		"invalid authentication method", "invalid connection type", "unrecognized authentication option name", "could not open",
	} {
		if strings.HasPrefix(problem, harmless) {
			return problem
		}
	}
	problem, _, _ = strings.Cut(problem, ": ")
	return quoted().ReplaceAllString(problem, "***")
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

// PendingRestart lists the settings whose value in the files needs a restart (pg_settings.pending_restart). With the
// right to read pg_file_settings it is by the files as they are now; else as they were when this session took them over, without
// [PendingRestart.File]. What this user may not see is left out (pg_read_all_settings shows it).
//
// A setting on the server's command line, as Patroni gives max_connections and its like, is among them when the files differ from it;
// before the first reload only for who may read pg_file_settings (17, 18). Patroni 4.0.7 and 4.1.5 write those into the file too.
func (c *Conn) PendingRestart(ctx context.Context) ([]PendingRestart, error) {
	var grant *GrantError
	err := c.mayRead(ctx, fileSettings)
	if err != nil && !errors.As(err, &grant) {
		return nil, err
	}
	// Reading the files marks them in this session's pg_settings: in this order.
	files := "select null, null where false"
	if err == nil {
		files = "select lower(name), setting from pg_file_settings" +
			" where lower(name) in (select lower(name) from pg_settings where context = 'postmaster') order by seqno"
	}
	results, err := c.query(
		ctx,
		files+"; select name, coalesce(current_setting(name, true), '') from pg_settings where pending_restart order by name",
	)
	if err != nil {
		return nil, err
	}
	inFiles, err := rows(results, 0, 2)
	if err != nil {
		return nil, err
	}
	last := map[string]string{}
	for _, r := range inFiles {
		name := r.text()
		last[name] = r.text()
	}
	all, err := rows(results, 1, 2)
	if err != nil {
		return nil, err
	}
	var out []PendingRestart
	for _, r := range all {
		p := PendingRestart{Name: r.shown(), Running: r.shown()}
		p.File = last[strings.ToLower(p.Name)]
		out = append(out, p)
	}
	return out, nil
}
