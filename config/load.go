package config

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/goccy/go-yaml/ast"

	"github.com/pgbaton/pgbaton/file"
)

const (
	systemFile = "/etc/pgbaton/pgbaton.yaml"
	quoteIt    = "a value with , : { } [ ] or # in it must be in quotes"
)

// Options is where Load looks. The zero value is a program without flags.
type Options struct {
	File       string    // --config; "" looks in the usual places
	Set        []Setting // flags that were given
	Executable string    // the running binary, links resolved; "" asks the system
	Argv0      string    // as which it was called; "" is os.Args[0]
	Reconcile  bool      // serve's flag: serve.reconcile is ReconcileOwn where it would be ReconcileOff

	LookupEnv func(string) (string, bool) // nil is os.LookupEnv

	systemFile string // for tests
}

// Setting is one key's value from a flag. Keys are those of the file ("pause.budget"); "pooler"
// may be given several times, each with one connection string.
type Setting struct {
	Key    string
	Value  string
	Source string // what an error calls it, such as "--pause-budget"
}

// Load reads flags, environment and file, in this order of weight, fills in the defaults,
// checks everything, reads the passwords' files and opens the state directory. It does not
// touch the network. The error is an *Error: what is wrong can only be mended by a person.
func Load(o Options) (*Config, error) {
	if o.LookupEnv == nil {
		o.LookupEnv = os.LookupEnv
	}
	l := &loader{options: o, seen: map[string]bool{}}
	if err := l.load(); err != nil {
		return nil, err
	}
	return &l.config, nil
}

// Keys lists every key that a file may have, as "pause.budget"; those of a pooler as "poolers[].dsn".
func Keys() []string {
	var keys []string
	for _, b := range new(loader).bindings() {
		keys = append(keys, b.key)
	}
	for _, b := range new(loader).poolerBindings(new(Pooler)) {
		keys = append(keys, "poolers[]."+b.key)
	}
	return append(keys, "poolers", "poolers[].databases")
}

// EnvName is the variable that sets a key.
func EnvName(key string) string {
	return "PGBATON_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

type loader struct {
	options Options
	config  Config
	seen    map[string]bool // keys that some source has set
}

// value is one scalar and where it comes from.
type value struct {
	text string // ${NAME} replaced
	raw  string // as written: what an error may show
	at   Error  // file, line and key, for an error
}

func (v value) fail(problem, hint string, cause error) error {
	e := v.at
	e.Problem, e.Hint, e.Err = problem, hint, cause
	return &e
}

type binding struct {
	key string
	set func(value) error
}

func (l *loader) bindings() []binding {
	c := &l.config
	return []binding{
		{"patroni.config", setPath(&c.Patroni.Config)},
		{"patroni.url", setURL(&c.Patroni.URL)},
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
		{"serve.grace", setDuration(&c.Serve.Grace)},
		{"serve.reconcile", setEnum(&c.Serve.Reconcile, ReconcileOff, ReconcileOwn, ReconcileAll)},
		{"state_dir", setPath(&c.StateDir)},
	}
}

func (l *loader) poolerBindings(p *Pooler) []binding {
	return []binding{
		{"dsn", setDSN(&p.DSN)},
		{"password_file", func(v value) error {
			var path string
			if err := setPath(&path)(v); err != nil {
				return err
			}
			var err error
			p.Password, err = readPassword(path, v)
			return err
		}},
		{"resolve", setEnum(&p.Resolve, "all", "one")},
		{"pidfile", setPath(&p.Pidfile)},
		{"config", setPath(&p.Config)},
	}
}

func (l *loader) load() error {
	path, text, err := l.findFile()
	if err != nil {
		return err
	}
	l.config.File = path
	inFile := map[string]value{}
	var poolers ast.Node
	var doc *tree
	if path != "" {
		if doc, err = parseTree(path, text); err != nil {
			return err
		}
		if poolers, err = l.flatten(doc, inFile); err != nil {
			return err
		}
	}
	var passwordFile value
	for _, b := range l.bindings() {
		v, ok, err := l.weightiest(b.key, inFile)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		l.seen[b.key] = true
		if b.key == "patroni.password_file" {
			passwordFile = v
		}
		if err := b.set(v); err != nil {
			return err
		}
	}
	if err := l.loadPoolers(doc, poolers); err != nil {
		return err
	}
	p := &l.config.Patroni
	if password, ok := l.env("PGBATON_PATRONI_PASSWORD"); ok {
		p.Password = password
	} else if p.PasswordFile != "" {
		if p.Password, err = readPassword(p.PasswordFile, passwordFile); err != nil {
			return err
		}
	}
	if p.Config != "" {
		if err := l.fillFromPatroni(inFile); err != nil {
			return err
		}
	}
	l.fillDefaults()
	if err := l.check(inFile); err != nil {
		return err
	}
	return l.openStateDir(inFile)
}

// findFile is the configuration file and its text; "" when there is none and none was asked for.
func (l *loader) findFile() (string, []byte, error) {
	o := l.options
	if o.File != "" {
		return readConfig(o.File, "--config")
	}
	if name, ok := l.env("PGBATON_CONFIG"); ok {
		return readConfig(name, "PGBATON_CONFIG")
	}
	executable, argv0, system := o.Executable, o.Argv0, o.systemFile
	if executable == "" {
		executable, _ = os.Executable()
	}
	if real, err := filepath.EvalSymlinks(executable); err == nil {
		executable = real
	}
	if argv0 == "" {
		argv0 = os.Args[0]
	}
	if system == "" {
		system = systemFile
	}
	var places []string
	if executable != "" {
		places = append(places, filepath.Join(filepath.Dir(executable), "pgbaton.yaml"))
	}
	// Without a slash it was found by PATH, and its folder is not the current one.
	if strings.Contains(argv0, "/") {
		places = append(places, filepath.Join(filepath.Dir(argv0), "pgbaton.yaml"))
	}
	for _, place := range append(places, system) {
		if _, err := os.Stat(place); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return readConfig(place, "")
	}
	return "", nil, nil
}

func readConfig(path, source string) (string, []byte, error) {
	text, err := file.Read(path, maxFile)
	if err != nil {
		return "", nil, &Error{Name: source, Problem: cannotRead(path, err), Err: err}
	}
	// Whatever stands beside it must be found from another working directory, too.
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", nil, &Error{Name: source, Problem: cannotRead(path, err), Err: err}
	}
	return absolute, text, nil
}

func cannotRead(path string, err error) string {
	if named, ok := errors.AsType[*fs.PathError](err); ok {
		err = named.Err
	}
	if strings.Contains(path, "://") {
		path = "***" // a connection string in the wrong place
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Sprintf("cannot read %s as uid %d: %v", path, os.Geteuid(), err)
	}
	return fmt.Sprintf("cannot read %s: %v", path, err)
}

func readPassword(path string, from value) (string, error) {
	at := from.at
	b, err := file.Read(path, maxPassword)
	if strings.Contains(from.raw, "${") {
		path = from.raw // the variable may be the password itself
	}
	if err != nil {
		at.Problem, at.Err = cannotRead(path, err), err
		return "", &at
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if password == "" {
		at.Problem = path + " is empty"
		return "", &at
	}
	if strings.ContainsAny(password, "\n\x00") {
		at.Problem = path + " has more than one line"
		at.Hint = "a password file holds the password and nothing else"
		return "", &at
	}
	return password, nil
}

// flatten puts every scalar of the document under its dotted key, and gives back `poolers`.
func (l *loader) flatten(doc *tree, into map[string]value) (poolers ast.Node, err error) {
	known := Keys()
	var walk func(n ast.Node, prefix string, line int) error
	walk = func(n ast.Node, prefix string, line int) error {
		if n == nil || doc.isNull(n) {
			return nil
		}
		entries, ok := doc.mapping(n)
		if !ok {
			at := Error{File: doc.file, Line: lineOf(n), Name: prefix, Problem: "must be keys and values"}
			if prefix == "" {
				at.Problem = "must be keys and values, such as patroni:"
			}
			return &at
		}
		for _, e := range entries {
			key := e.key
			if prefix != "" {
				key = prefix + "." + e.key
			}
			isLeaf := slices.Contains(known, key)
			isRoom := slices.ContainsFunc(known, func(k string) bool { return strings.HasPrefix(k, key+".") })
			switch {
			case key == "poolers":
				poolers = e.value
			case isRoom:
				if err := walk(e.value, key, e.line); err != nil {
					return err
				}
			case !isLeaf:
				return unknownKey(doc.file, e, prefix, known)
			case doc.isNull(e.value):
			default:
				v, err := l.scalarValue(doc, e, key)
				if err != nil {
					return err
				}
				into[key] = v
			}
		}
		return nil
	}
	return poolers, walk(doc.root, "", 1)
}

func unknownKey(path string, at entry, prefix string, known []string) error {
	within := ""
	if prefix != "" {
		within = prefix + "."
	}
	full := within + at.key
	compare := withoutIndex(full)
	e := &Error{File: path, Line: at.line, Name: full, Problem: fmt.Sprintf("unknown key %q", full)}
	near := nearest(compare, append(rooms(known), known...))
	switch {
	case compare == "patroni.password":
		e.Hint = "a password comes from patroni.password_file or PGBATON_PATRONI_PASSWORD"
	case compare == "poolers[].password":
		e.Hint = "a password comes from password_file, the dsn, a pgpass file or PGBATON_POOLER_PASSWORD"
	// What stands where a key should be may be a piece of a password.
	case !isPlainKey(at.key), at.flow && near == "":
		e.Name = within + "***"
		e.Problem, e.Hint = fmt.Sprintf("unknown key %q", e.Name), quoteIt
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

func (l *loader) scalarValue(doc *tree, e entry, key string) (value, error) {
	at := Error{File: doc.file, Line: e.line, Name: key}
	raw, ok := doc.scalar(e.value)
	if !ok {
		at.Problem = "must be a single value"
		return value{}, &at
	}
	return l.newValue(raw, at)
}

func (l *loader) newValue(raw string, at Error) (value, error) {
	text, err := l.expand(raw)
	if err != nil {
		at.Problem = err.Error()
		return value{}, &at
	}
	return value{text: text, raw: raw, at: at}, nil
}

// expand replaces ${NAME}. "$${" stands for "${".
func (l *loader) expand(raw string) (string, error) {
	var b strings.Builder
	for {
		i := strings.Index(raw, "${")
		if i < 0 {
			b.WriteString(raw)
			return b.String(), nil
		}
		if i > 0 && raw[i-1] == '$' {
			b.WriteString(raw[:i-1] + "${")
			raw = raw[i+2:]
			continue
		}
		name, rest, ok := strings.Cut(raw[i+2:], "}")
		if !ok || !isName(name) {
			// Not shown: after a stray ${ a password may follow.
			return "", errors.New("has a ${ that is not ${NAME}; write $${ for the two characters themselves")
		}
		v, set := l.options.LookupEnv(name)
		if !set && name == "HOSTNAME" {
			host, err := os.Hostname()
			if err != nil {
				return "", fmt.Errorf("${HOSTNAME}: %w", err)
			}
			v, set = host, true
		}
		if !set {
			return "", fmt.Errorf("the environment variable %s is not set", name)
		}
		b.WriteString(raw[:i] + v)
		raw = rest
	}
}

func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// env is a variable that is set to something: an empty one is none, as in a manifest's leftover.
func (l *loader) env(name string) (string, bool) {
	v, ok := l.options.LookupEnv(name)
	return v, ok && v != ""
}

// weightiest is a key's value: from a flag, else the environment, else the file.
func (l *loader) weightiest(key string, inFile map[string]value) (value, bool, error) {
	for _, s := range slices.Backward(l.options.Set) {
		if s.Key == key {
			v, err := l.flagValue(s)
			return v, true, err
		}
	}
	if raw, ok := l.env(EnvName(key)); ok {
		v, err := l.newValue(raw, Error{Name: EnvName(key)})
		return v, true, err
	}
	v, ok := inFile[key]
	return v, ok, nil
}

func (l *loader) flagValue(s Setting) (value, error) {
	at := Error{Name: s.Source}
	if at.Name == "" {
		at.Name = s.Key
	}
	if isDSN := s.Key == "pooler" || s.Key == "postgres" || s.Key == "resume.route"; isDSN {
		if problem, hint, cause := checkDSN(s.Value); problem != "" && !strings.Contains(s.Value, "${") {
			return value{}, value{at: at}.fail(problem, hint, cause)
		}
		if holdsPassword(s.Value) {
			at.Problem = "a password on a command line is there for everyone to read"
			at.Hint = "put it into a pgpass file, a password_file or the environment"
			return value{}, &at
		}
	}
	return l.newValue(s.Value, at)
}

func (l *loader) loadPoolers(doc *tree, node ast.Node) error {
	var given []value
	for _, s := range l.options.Set {
		if s.Key == "pooler" {
			v, err := l.flagValue(s)
			if err != nil {
				return err
			}
			given = append(given, v)
		}
	}
	if raw, ok := l.env("PGBATON_POOLER"); ok && given == nil {
		for line := range strings.Lines(raw) {
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			v, err := l.newValue(line, Error{Name: "PGBATON_POOLER"})
			if err != nil {
				return err
			}
			given = append(given, v)
		}
	}
	for _, v := range given {
		p := Pooler{Resolve: "all"}
		if err := setDSN(&p.DSN)(v); err != nil {
			return err
		}
		l.config.Poolers = append(l.config.Poolers, p)
	}
	if given == nil && node != nil && !doc.isNull(node) {
		if err := l.poolersOf(doc, node); err != nil {
			return err
		}
	}
	if password, ok := l.env("PGBATON_POOLER_PASSWORD"); ok {
		for i := range l.config.Poolers {
			// A file of its own says more about one pooler than a variable about all.
			if p := &l.config.Poolers[i]; p.Password == "" && p.DSN != "" {
				p.Password = password
			}
		}
	}
	return nil
}

func (l *loader) poolersOf(doc *tree, node ast.Node) error {
	items, ok := doc.sequence(node)
	if !ok {
		return &Error{File: doc.file, Line: lineOf(node), Name: "poolers", Problem: "must be a list", Hint: "write - dsn: ... below it"}
	}
	for i, item := range items {
		prefix := fmt.Sprintf("poolers[%d]", i)
		at := Error{File: doc.file, Line: lineOf(item), Name: prefix}
		entries, ok := doc.mapping(item)
		if !ok {
			at.Problem, at.Hint = "must have keys", "write - dsn: ..."
			return &at
		}
		if len(entries) > 0 {
			at.Line = entries[0].line // the parser's own position is the first colon
		}
		p := Pooler{Resolve: "all"}
		bindings := l.poolerBindings(&p)
		for _, e := range entries {
			key := prefix + "." + e.key
			if e.key == "databases" {
				var err error
				if p.Databases, err = l.databasesOf(doc, e, key); err != nil {
					return err
				}
				continue
			}
			b := slices.IndexFunc(bindings, func(b binding) bool { return b.key == e.key })
			if b < 0 {
				return unknownKey(doc.file, e, prefix, Keys())
			}
			if doc.isNull(e.value) {
				continue
			}
			v, err := l.scalarValue(doc, e, key)
			if err != nil {
				return err
			}
			if err := bindings[b].set(v); err != nil {
				return err
			}
		}
		if p.DSN == "" && p.Pidfile == "" {
			at.Problem = "has neither dsn nor pidfile"
			return &at
		}
		l.config.Poolers = append(l.config.Poolers, p)
	}
	return nil
}

func (l *loader) databasesOf(doc *tree, e entry, key string) (Databases, error) {
	at := Error{File: doc.file, Line: e.line, Name: key}
	if items, ok := doc.sequence(e.value); ok {
		names := []string{}
		for _, item := range items {
			v, err := l.scalarValue(doc, entry{line: lineOf(item), value: item}, key)
			if err != nil {
				return Databases{}, err
			}
			if v.text == "" {
				return Databases{}, v.fail("has an empty name", "", nil)
			}
			names = append(names, v.text)
		}
		if len(names) == 0 {
			at.Problem, at.Hint = "is an empty list", "write all, auto, or the names"
			return Databases{}, &at
		}
		return Databases{Names: names}, nil
	}
	if doc.isNull(e.value) {
		return Databases{}, nil
	}
	v, err := l.scalarValue(doc, e, key)
	if err != nil {
		return Databases{}, err
	}
	var word string
	if err := setEnum(&word, "all", "auto")(v); err != nil {
		return Databases{}, v.fail(fmt.Sprintf("%q is none of all, auto", v.raw), "a single name is written as a list, [name]", nil)
	}
	return Databases{Auto: word == "auto"}, nil
}

func (l *loader) fillDefaults() {
	c := &l.config
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	wait := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.Patroni.URL, "http://127.0.0.1:8008")
	def(&c.Postgres, "host=/var/run/postgresql user=postgres dbname=postgres")
	wait(&c.Pause.Budget, 15*time.Second)
	// Who sets a small budget and no attempt wants an attempt that fits.
	wait(&c.Pause.Attempt, min(2*time.Second, c.Pause.Budget))
	def(&c.Pause.OnTimeout, OnTimeoutHold)
	wait(&c.Pause.Lease, 30*time.Second)
	wait(&c.Pause.ShutdownBudget, 5*time.Second)
	if !l.seen["pause.stop_server"] {
		c.Pause.StopServer = true
	}
	wait(&c.Resume.Timeout, 60*time.Second)
	def(&c.Serve.Listen, "127.0.0.1:8009")
	def(&c.Serve.ClientScope, ScopeOperate)
	def(&c.Serve.Reconcile, ReconcileOff)
	if l.options.Reconcile && c.Serve.Reconcile == ReconcileOff {
		c.Serve.Reconcile = ReconcileOwn
	}
	wait(&c.Serve.Grace, 20*time.Second)
}

// where is the place of a key's value, for an error about how two values go together.
func (l *loader) where(key string, inFile map[string]value) value {
	v, ok, err := l.weightiest(key, inFile)
	if !ok || err != nil {
		return value{at: Error{Name: key}}
	}
	return v
}

func (l *loader) check(inFile map[string]value) error {
	c := &l.config
	if p := c.Pause; p.Attempt > p.Budget {
		return l.where("pause.attempt", inFile).fail(fmt.Sprintf("%s is longer than pause.budget %s", p.Attempt, p.Budget), "", nil)
	}
	if p := c.Pause; p.Lease <= p.Attempt {
		return l.where("pause.lease", inFile).fail(fmt.Sprintf("%s is not longer than pause.attempt %s", p.Lease, p.Attempt), "a pause would end before it began", nil)
	}
	for _, s := range []struct {
		key string
		VersionSource
	}{{"versions.postgres", c.Versions.Postgres}, {"versions.pgbouncer", c.Versions.PgBouncer}} {
		var set []string
		for name, v := range map[string]string{"setting": s.Setting, "file": s.File, "line": s.Line} {
			if v != "" {
				set = append(set, name)
			}
		}
		if slices.Sort(set); len(set) > 1 {
			at := l.where(s.key+"."+set[0], inFile).at
			at.Name = s.key
			return value{at: at}.fail("has "+strings.Join(set, " and "), "one of them is enough", nil)
		}
	}
	if p := c.Patroni; (p.CertFile == "") != (p.KeyFile == "") && !l.fromPatroni() {
		given := "patroni.cert_file"
		if p.CertFile == "" {
			given = "patroni.key_file"
		}
		return l.where(given, inFile).fail("patroni.cert_file and patroni.key_file go together", "", nil)
	}
	return l.checkServe(inFile)
}

// checkServe finds keys that need another one.
func (l *loader) checkServe(inFile map[string]value) error {
	s := l.config.Serve
	for _, pair := range []struct {
		key, of, other string
		without        bool
	}{
		{"serve.cert_file", s.CertFile, "serve.key_file", s.KeyFile == ""},
		{"serve.key_file", s.KeyFile, "serve.cert_file", s.CertFile == ""},
		{"serve.client_ca_file", s.ClientCAFile, "serve.cert_file", s.CertFile == ""},
		{"serve.client_key_pins", strings.Join(s.ClientKeyPins, ""), "serve.client_ca_file", s.ClientCAFile == ""},
	} {
		if pair.of != "" && pair.without {
			return l.where(pair.key, inFile).fail("needs "+pair.other, "", nil)
		}
	}
	return nil
}

// fromPatroni: Patroni's own certfile may hold the key, too.
func (l *loader) fromPatroni() bool { return l.config.Patroni.Config != "" }

func (l *loader) openStateDir(inFile map[string]value) error {
	c := &l.config
	if c.StateDir != "" {
		v := l.where("state_dir", inFile)
		if err := openStateDir(c.StateDir); err != nil {
			return v.fail(stateDirProblem(c.StateDir, err), "", err)
		}
		return nil
	}
	if openStateDir(defaultStateDir) == nil {
		c.StateDir = defaultStateDir
		return nil
	}
	tmp, ok := l.env("TMPDIR")
	if !ok {
		tmp = "/tmp"
	}
	dir := fallbackStateDir(tmp)
	if err := openStateDir(dir); err != nil {
		return &Error{Name: "state_dir", Problem: stateDirProblem(dir, err), Hint: "set state_dir to a directory of your own", Err: err}
	}
	c.StateDir = dir
	return nil
}

func stateDirProblem(dir string, err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return fmt.Sprintf("%s: %v", dir, path.Err)
	}
	return fmt.Sprintf("%s %v", dir, err)
}

func setText(to *string) func(value) error {
	return func(v value) error { *to = v.text; return nil }
}

// setPath reads a relative path as one beside the file that it stands in.
func setPath(to *string) func(value) error {
	return func(v value) error {
		if v.text == "" || strings.ContainsRune(v.text, 0) {
			return v.fail("is not a path", "", nil)
		}
		if strings.Contains(v.text, "://") { // not shown: there may be a password in it
			return v.fail("is a URL, and must be a path", "", nil)
		}
		*to = v.text
		if v.at.File == "" && !filepath.IsAbs(v.text) {
			return v.fail("must be an absolute path", "Patroni's working directory is not yours", nil)
		}
		if !filepath.IsAbs(v.text) {
			*to = filepath.Join(filepath.Dir(v.at.File), v.text)
		}
		return nil
	}
}

func setURL(to *string) func(value) error {
	return func(v value) error {
		const hint = "write http://HOST:8008 or https://HOST:8008"
		u, err := url.Parse(v.text)
		// The error is not shown: it repeats the URL.
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
			return v.fail("is not a URL of Patroni's REST API", hint, nil)
		}
		if u.User != nil {
			return v.fail("has a user in it", "use patroni.username and patroni.password_file", nil)
		}
		// Below /patroni Patroni answers 200 to everything: a replica would seem to hold the lock.
		if u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
			return v.fail("has something behind the port", hint, nil)
		}
		if port := u.Port(); port != "" {
			if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
				return v.fail("has no possible port", hint, nil)
			}
		}
		*to = strings.TrimRight(v.text, "/")
		return nil
	}
}

func setListen(to *string) func(value) error {
	return func(v value) error {
		host, port, err := net.SplitHostPort(v.text)
		if n, wrong := strconv.Atoi(port); err != nil || wrong != nil || n < 0 || n > 65535 || strings.ContainsAny(host, "/@ ") {
			return v.fail("is not HOST:PORT", "write 127.0.0.1:8009", nil)
		}
		*to = v.text
		return nil
	}
}

func setPins(to *[]string) func(value) error {
	return func(v value) error {
		*to = nil
		for pin := range strings.SplitSeq(v.text, ",") {
			pin = strings.TrimSpace(pin)
			if sum, err := base64.StdEncoding.DecodeString(pin); err != nil || len(sum) != sha256.Size {
				return v.fail("has a pin that is not the base64 of a SHA-256", "openssl x509 -in client.pem -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64", nil)
			}
			*to = append(*to, pin)
		}
		return nil
	}
}

func setDSN(to *string) func(value) error {
	return func(v value) error {
		if problem, hint, cause := checkDSN(v.text); problem != "" {
			return v.fail(problem, hint, cause)
		}
		*to = v.text
		return nil
	}
}

func setEnum(to *string, allowed ...string) func(value) error {
	return func(v value) error {
		if !slices.Contains(allowed, v.text) {
			return v.fail(fmt.Sprintf("%q is none of %s", clip(v.raw), strings.Join(allowed, ", ")), "", nil)
		}
		*to = v.text
		return nil
	}
}

func setDuration(to *time.Duration) func(value) error {
	return func(v value) error {
		d, err := time.ParseDuration(v.text)
		switch {
		case err != nil && isNumber(v.text):
			return v.fail(fmt.Sprintf("%q has no unit", clip(v.raw)), "write "+v.text+"s", nil)
		case err != nil:
			return v.fail(fmt.Sprintf("%q is not a duration", clip(v.raw)), "write 500ms, 15s or 1m30s", nil)
		case d == 0 && isNumber(v.text), d <= 0:
			return v.fail(fmt.Sprintf("%q is not longer than nothing", clip(v.raw)), "", nil)
		}
		*to = d
		return nil
	}
}

// ParseDuration reads a flag's duration with the same rules and words as one of the file.
func ParseDuration(source, text string) (time.Duration, error) {
	var d time.Duration
	err := setDuration(&d)(value{text: text, raw: text, at: Error{Name: source}})
	return d, err
}

func isNumber(s string) bool {
	return s != "" && len(s) < 20 && strings.Trim(s, "0123456789.") == "" && strings.Trim(s, ".") != ""
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}
