package config

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/pgbaton/pgbaton/config/yamlfile"
)

// binding is a key and what takes its value.
type binding struct {
	key string
	set func(value) error
}

func (l *loader) bindings() []binding {
	c := &l.config
	return []binding{
		{"patroni.config", setPatroniConfig(&c.Patroni.Config)},
		{"patroni.url", setURL(&c.Patroni.URL)},
		{"patroni.urls", setURLs(&c.Patroni.URLs)},
		{"patroni.username", setText(&c.Patroni.Username)},
		{"patroni.password_file", setPath(&c.Patroni.PasswordFile)},
		{"patroni.ca_file", setPath(&c.Patroni.CAFile)},
		{"patroni.cert_file", setPath(&c.Patroni.CertFile)},
		{"patroni.key_file", setPath(&c.Patroni.KeyFile)},
		{"postgres", setDSN(&c.Postgres)},
		{"pause.budget", setDuration(&c.Pause.Budget)},
		{"pause.attempt", setDuration(&c.Pause.Attempt)},
		{"pause.on_timeout", setEnum(&c.Pause.OnTimeout, OnTimeoutHold, OnTimeoutTerminate, OnTimeoutSkip, OnTimeoutWait)},
		{"pause.lease", setDuration(&c.Pause.Lease)},
		{"pause.shutdown_budget", setDuration(&c.Pause.ShutdownBudget)},
		{"pause.stop_server", func(v value) error {
			var word string
			err := setEnum(&word, "auto", "off")(v)
			c.Pause.StopServer = word == "auto"
			return err
		}},
		{"resume.route", setDSN(&c.Resume.Route)},
		{"resume.timeout", setDuration(&c.Resume.Timeout)},
		{"versions.postgres.setting", setText(&c.Versions.Postgres.Setting)},
		{"versions.postgres.file", setPath(&c.Versions.Postgres.File)},
		{"versions.postgres.line", setPath(&c.Versions.Postgres.Line)},
		{"versions.pgbouncer.file", setPath(&c.Versions.PgBouncer.File)},
		{"versions.pgbouncer.line", setPath(&c.Versions.PgBouncer.Line)},
		{"serve.listen", setListen(&c.Serve.Listen)},
		{"serve.tokens_file", setPath(&c.Serve.TokensFile)},
		{"serve.cert_file", setPath(&c.Serve.CertFile)},
		{"serve.key_file", setPath(&c.Serve.KeyFile)},
		{"serve.client_ca_file", setPath(&c.Serve.ClientCAFile)},
		{"serve.client_key_pins", setPins(&c.Serve.ClientKeyPins)},
		{"serve.client_scope", setEnum(&c.Serve.ClientScope, ScopeRead, ScopeOperate)},
		{"serve.labels_file", setPath(&c.Serve.LabelsFile)},
		{"serve.grace", setDuration(&c.Serve.Grace)},
		{"serve.reconcile", setEnum(&c.Serve.Reconcile, ReconcileOff, ReconcileOwn, ReconcileAll)},
		{"members.url", setMembersURL(&c.Members.URL)},
		{"members.token_file", setPath(&c.Members.TokenFile)},
		{"members.ca_file", setPath(&c.Members.CAFile)},
		{"members.cert_file", setPath(&c.Members.CertFile)},
		{"members.key_file", setPath(&c.Members.KeyFile)},
		{"state_dir", setPath(&c.StateDir)},
	}
}

func (l *loader) poolerBindings(p *Pooler) []binding {
	return []binding{
		{"dsn", setDSN(&p.DSN)},
		{"password_file", func(v value) error {
			if err := setPath(&p.PasswordFile)(v); err != nil {
				return err
			}
			var err error
			p.Password, err = l.readPassword(p.PasswordFile, v)
			return err
		}},
		{"resolve", setEnum(&p.Resolve, "all", "one")},
		{"pidfile", setPath(&p.Pidfile)},
		{"config", setPath(&p.Config)},
		{"agent", setAgent(&p.Agent)},
	}
}

// flatten puts every scalar of the document under its dotted key, and gives back `poolers`.
func (l *loader) flatten(doc *yamlfile.Document) (poolers yamlfile.Value) {
	known := Keys()
	var walk func(v yamlfile.Value, prefix string)
	walk = func(v yamlfile.Value, prefix string) {
		if v.IsNull() {
			return
		}
		entries, ok := v.Mapping()
		if !ok {
			at := &Error{File: doc.File, Line: v.Line(), Name: prefix, Problem: "must be keys and values"}
			if prefix == "" {
				at.Problem = "must be keys and values, such as patroni:"
			}
			l.wrong(at)
			return
		}
		for _, e := range entries {
			name, _ := e.Key.Scalar()
			key := name
			if prefix != "" {
				key = prefix + "." + name
			}
			isLeaf := slices.Contains(known, key)
			isRoom := slices.ContainsFunc(known, func(k string) bool { return strings.HasPrefix(k, key+".") })
			switch {
			case key == "poolers":
				poolers = e.Value
			case isRoom:
				walk(e.Value, key)
			case !isLeaf:
				l.wrong(unknownKey(doc.File, e, prefix, known))
			case e.Value.IsNull():
			case key == "patroni.urls":
				if v, err := l.listValue(doc.File, e, key); !l.wrong(err) {
					l.inFile[key] = v
				}
			default:
				if v, err := l.scalarValue(doc.File, e.Value, e.Key.Line(), key); !l.wrong(err) {
					l.inFile[key] = v
				}
			}
		}
	}
	walk(doc.Root, "")
	return poolers
}

func unknownKey(path string, at yamlfile.Entry, prefix string, known []string) error {
	key, _ := at.Key.Scalar()
	within := ""
	if prefix != "" {
		within = prefix + "."
	}
	full := within + key
	compare := withoutIndex(full)
	e := &Error{File: path, Line: at.Key.Line(), Name: full, Problem: fmt.Sprintf("unknown key %q", full)}
	near := nearest(compare, append(rooms(known), known...))
	switch {
	case compare == "patroni.password":
		e.Hint = "a password comes from patroni.password_file or PGBATON_PATRONI_PASSWORD"
	case compare == "poolers[].password":
		e.Hint = "a password comes from password_file, the dsn, a pgpass file or PGBATON_POOLER_PASSWORD"
	// What stands where a key should be may be a piece of a password.
	case !isPlainKey(key), at.Flow && near == "":
		e.Name = within + "***"
		e.Problem, e.Hint = fmt.Sprintf("unknown key %q", e.Name), yamlfile.QuoteHint
	case near != "":
		e.Hint = fmt.Sprintf("did you mean %q?", near)
	default:
		e.Hint = "known here are " + strings.Join(children(withoutIndex(prefix), known), ", ")
	}
	return e
}

// rooms are the keys that have keys: pause, versions.postgres.
func rooms(known []string) []string {
	var rooms []string
	for _, k := range known {
		for i := range len(k) {
			if room := k[:i]; k[i] == '.' && !strings.HasSuffix(room, "]") && !slices.Contains(rooms, room) {
				rooms = append(rooms, room)
			}
		}
	}
	return rooms
}

// children are the names that may stand directly below a key; "" is the document.
func children(prefix string, known []string) []string {
	var names []string
	for _, k := range known {
		if prefix != "" {
			var ok bool
			if k, ok = strings.CutPrefix(k, prefix+"."); !ok {
				continue
			}
		}
		name, _, _ := strings.Cut(k, ".")
		if name = strings.TrimSuffix(name, "[]"); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func isPlainKey(key string) bool {
	return key != "" && len(key) <= 40 && !strings.ContainsFunc(key, func(r rune) bool {
		return r != '_' && r != '-' && r != '.' && (r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r))
	})
}

// withoutIndex turns poolers[3].dsn into poolers[].dsn.
func withoutIndex(key string) string {
	open, end := strings.Index(key, "["), strings.Index(key, "]")
	if open < 0 || end < open {
		return key
	}
	return key[:open+1] + key[end:]
}

// nearest is the known word with the smallest edit distance, or "" when none is near.
func nearest(word string, known []string) string {
	word = strings.ToLower(word)
	// The room counts for nothing here: in "poolers[].x" most letters are always right.
	last := word[strings.LastIndex(word, ".")+1:]
	best, bestDistance := "", max(2, len(last)/3)+1
	for _, k := range known {
		if d := distance(word, k); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	if best != "" {
		return best
	}
	// "budget" alone was meant for the room it lives in.
	i := slices.IndexFunc(known, func(k string) bool { return strings.HasSuffix(k, "."+last) })
	if i >= 0 {
		return known[i]
	}
	return ""
}

func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
