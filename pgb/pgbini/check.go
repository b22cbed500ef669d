package pgbini

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgbaton/pgbaton/file"
)

// running is SHOW CONFIG.
type running struct {
	list  []Setting
	byKey map[string]Setting
	newer bool // than what is known here: be lenient
}

func newRunning(settings []Setting) *running {
	r := &running{list: settings, byKey: make(map[string]Setting, len(settings))}
	for _, s := range settings {
		r.byKey[s.Key] = s
		r.newer = r.newer || kinds[s.Key] == kindUnknown
	}
	return r
}

func (r *running) value(key string) string { return r.byKey[key].Value }

// CheckAny is [File.Check] where the version cannot be asked: what no version from 1.18 to 1.26 takes.
func (f *File) CheckAny() error {
	settings := make([]Setting, 0, len(kinds))
	for key := range kinds {
		settings = append(settings, Setting{Key: key, Changeable: true})
	}
	return f.Check(settings)
}

// Check says what the version whose settings these are (see [Pooler.Settings]) refuses at RELOAD in a file that has no error of syntax:
// the first unknown key or section, or value that does not fit, as a [*file.Problem]. There PgBouncer stops reading; what stands before
// it is in force then, and what stands after it is not (1.18 to 1.26). So a file is worth a check before it is reloaded. Settings that
// RELOAD does not touch are not looked at: PgBouncer would not start with them, and [File.Diff] says so. Of a version that is newer than
// 1.26, keys that are not known here are taken to be right.
func (f *File) Check(settings []Setting) error {
	r := newRunning(settings)
	var first *file.Problem
	found := func(at place, key, problem string) {
		// Sections stand apart from their entries, and a file may be included twice; the first that is found in its list is.
		if first == nil || at.file == first.File && at.line < first.Line {
			first = &file.Problem{File: at.file, Line: at.line, Name: key, Problem: problem}
		}
	}
	for i := range f.entries {
		e := &f.entries[i]
		if problem := r.problem(e); problem != "" {
			if s, ok := r.byKey[e.name]; e.section == "pgbouncer" && ok && !s.Changeable {
				continue
			}
			found(e.place, e.label(), problem)
			break
		}
	}
	for _, s := range f.sections {
		if problem := r.sectionProblem(s.name); problem != "" {
			found(s, "["+s.name+"]", problem)
			break
		}
	}
	if first == nil {
		return nil
	}
	return first
}

func (r *running) sectionProblem(name string) string {
	_, peers := r.byKey["peer_id"]
	if name == "peers" && peers || r.newer {
		return ""
	}
	return "this version has no such section"
}

// problem is what this version has against an entry.
func (r *running) problem(e *entry) string {
	var params map[string]string
	switch e.section {
	case "pgbouncer":
		if _, ok := r.byKey[e.name]; !ok {
			return "this version has no such setting"
		}
		if mayHoldSecret(e.name) {
			return ""
		}
		if _, ldap := r.byKey["auth_ldap_options"]; e.name == "auth_type" && strings.EqualFold(e.value, "ldap") && !ldap {
			return "this version has no ldap"
		}
		return valueProblem(e.name, e.value)
	case "databases":
		if e.name == "*" {
			return "" // PgBouncer does not look into it
		}
		params = databaseParams
		if mode, ok := e.conn.get("load_balance_hosts"); ok && !containsFold([]string{"disable", "round-robin"}, mode) {
			return "not a load_balance_hosts"
		}
	case "users":
		params = userParams
	case "peers":
		params = peerParams
	default:
		return "" // told of the section
	}
	for _, p := range e.conn.pairs {
		since, known := params[p[0]]
		if _, has := r.byKey[since]; known && (since == "" || has) || !known && r.newer {
			continue
		}
		if e.conn.secret {
			// It may be a piece of the secret.
			return "this version does not know one of its parameters"
		}
		return fmt.Sprintf("this version does not know the parameter %q", printable(p[0]))
	}
	return ""
}

// valueProblem is what PgBouncer has against a value, "" for nothing or not known.
func valueProblem(key, value string) string {
	switch kinds[key] {
	case kindInt, kindUint:
		if _, ok := strtol(value); !ok {
			return "not a whole number"
		}
	case kindTime:
		if _, ok := seconds(value); !ok {
			return "not a number of seconds"
		}
	case kindName:
		if !containsFold(names[key], value) {
			return "not one of " + strings.Join(names[key], ", ")
		}
	case kindText:
		if key == "auth_dbname" && value == AdminDatabase {
			return "cannot be the admin console"
		}
	}
	return ""
}

// fixedProblem is what every version refuses in a connection string.
func (e *entry) fixedProblem() string {
	if e.conn == nil || e.conn.bad || e.name == "*" && e.section == "databases" {
		return ""
	}
	if port, ok := e.conn.get("port"); ok && e.section != "users" && atoi(port) == 0 {
		return "port is not a number, or 0"
	}
	if mode, ok := e.conn.get("pool_mode"); ok && e.section != "peers" && !containsFold(poolModes, mode) {
		return "not a pool_mode"
	}
	if e.section == "peers" {
		if id, ok := strtonum(e.name); !ok || id < 1 || id > 0xffff {
			return "the id of a peer is a number from 1 to 65535"
		}
		if _, ok := e.conn.get("host"); !ok {
			return "a peer without a host"
		}
	}
	return ""
}

func containsFold(list []string, s string) bool {
	return slices.ContainsFunc(list, func(x string) bool { return strings.EqualFold(x, s) })
}
