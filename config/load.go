package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pgbaton/pgbaton/config/yamlfile"
	"github.com/pgbaton/pgbaton/file"
)

const (
	systemFile  = "/etc/pgbaton/pgbaton.yaml"
	maxFile     = 1 << 20
	maxPassword = 64 << 10
)

// Options is where Load looks. The zero value is a program without flags.
type Options struct {
	File       string    // --config; "" looks in the usual places
	Set        []Setting // flags that were given
	Executable string    // the running binary, links resolved; "" asks the system
	Argv0      string    // as which it was called; "" is os.Args[0]
	LookOnly   bool      // do not make the state directory: StateDir is "" where there is none
	Reconcile  bool      // serve's flag: serve.reconcile is ReconcileOwn where it would be ReconcileOff

	LookupEnv func(string) (string, bool) // nil is os.LookupEnv
	// PatroniEnv looks up a PATRONI_* variable in the environment that the Patroni with this configuration file ("" where it has none) was
	// started with; nil: it is not known. Patroni takes them out of its own environment when it has read them (config.py, 3.0 to 4.1), so
	// that no hook has them. It is asked only when patroni.config is set.
	PatroniEnv func(name, patroniConfig string) (string, bool)

	systemFile string // for tests
}

// Setting is one key's value from a flag. Keys are those of the file ("pause.budget"); "pooler"
// may be given several times, each with one connection string.
type Setting struct {
	Key    string
	Value  string
	Source string // what an error calls it, such as "--pause-budget"
}

// Load reads flags, environment and file, in this order of weight, fills in the defaults, checks everything, reads the passwords' files
// and opens the state directory. It does not touch the network, and waits for nothing but the file system.
//
// The error is an [*Error], or [Errors] where several things are wrong: they can only be mended by a person. The configuration is never
// nil. With an error it has what could be used: a value that is wrong has its default, a pooler that is wrong is left out, StateDir is
// "" where it cannot be opened. It is for telling somebody (the log, /metrics); whoever stops a server by it must know that it is not
// what was meant.
//
// [Config.Warnings] is what is odd and does not make it unusable.
func Load(o Options) (*Config, error) {
	if o.LookupEnv == nil {
		o.LookupEnv = os.LookupEnv
	}
	l := &loader{options: o, seen: map[string]bool{}, inFile: map[string]value{}}
	l.load()
	switch len(l.problems) {
	case 0:
		return &l.config, nil
	case 1:
		return &l.config, l.problems[0]
	}
	return &l.config, l.problems
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
	for _, name := range followKeys {
		keys = append(keys, "poolers[].follow."+name)
	}
	return append(keys, "poolers", "poolers[].databases")
}

// EnvName is the variable that sets a key.
func EnvName(key string) string {
	return "PGBATON_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

type loader struct {
	options  Options
	config   Config
	seen     map[string]bool  // keys that some source has set
	inFile   map[string]value // by dotted key
	problems Errors
}

// wrong keeps an error and reports whether there was one.
func (l *loader) wrong(err error) bool {
	if err == nil {
		return false
	}
	at, ok := errors.AsType[*Error](err)
	if !ok {
		at = asError(err)
	}
	l.problems = append(l.problems, at)
	return true
}

func (l *loader) warn(err *Error) { l.config.Warnings = append(l.config.Warnings, err) }

func (l *loader) load() {
	poolers := l.readFile()
	var passwordFile value
	for _, b := range l.bindings() {
		v, ok, err := l.weightiest(b.key)
		if l.wrong(err) || !ok {
			continue
		}
		if b.key == "patroni.password_file" {
			passwordFile = v
		}
		if !l.wrong(b.set(v)) {
			l.seen[b.key] = true
		}
	}
	l.loadPoolers(poolers)
	p := &l.config.Patroni
	if password, ok := l.env("PGBATON_PATRONI_PASSWORD"); ok {
		p.Password = password
	} else if p.PasswordFile != "" {
		var err error
		p.Password, err = l.readPassword(p.PasswordFile, passwordFile)
		l.wrong(err)
	}
	if p.Config != "" {
		l.wrong(l.fillFromPatroni())
	}
	l.fillDefaults()
	l.check()
	l.checkPassfiles()
	l.wrong(l.openStateDir())
}

// readFile finds the configuration file and puts its values into inFile. It returns what stands below poolers.
func (l *loader) readFile() (poolers yamlfile.Value) {
	path, text, err := l.findFile()
	if l.wrong(err) || path == "" {
		return poolers
	}
	l.config.File = path
	doc, err := yamlfile.Parse(path, text)
	if l.wrong(err) {
		return poolers
	}
	l.wrong(doc.Twice())
	poolers = l.flatten(doc)
	if info, err := os.Stat(path); err == nil {
		// Without a password in it everybody may read it, as a ConfigMap.
		if problem := file.Permissions(info, l.holdsSecret(poolers)); problem != "" {
			l.warn(&Error{File: path, Problem: problem})
		}
	}
	return poolers
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

func (l *loader) readPassword(path string, from value) (string, error) {
	at := from.at
	b, err := file.Read(path, maxPassword)
	info, statErr := os.Stat(path)
	if strings.Contains(from.raw, "${") {
		path = from.raw // the variable may be the password itself
	}
	if err != nil {
		at.Problem, at.Err = cannotRead(path, err), err
		return "", &at
	}
	if statErr == nil {
		if problem := file.Permissions(info, true); problem != "" {
			odd := from.at
			odd.Problem = path + ": " + problem
			l.warn(&odd)
		}
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

// env is a variable that is set to something: an empty one is none, as in a manifest's leftover.
func (l *loader) env(name string) (string, bool) {
	v, ok := l.options.LookupEnv(name)
	return v, ok && v != ""
}

// weightiest is a key's value: from a flag, else the environment, else the file.
func (l *loader) weightiest(key string) (value, bool, error) {
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
	v, ok := l.inFile[key]
	return v, ok, nil
}

func (l *loader) flagValue(s Setting) (value, error) {
	at := Error{Name: s.Source}
	if at.Name == "" {
		at.Name = s.Key
	}
	if isDSN := s.Key == "pooler" || s.Key == "postgres" || s.Key == "resume.route"; isDSN {
		if holdsPassword(s.Value) {
			at.Problem = "a password on a command line is there for everyone to read"
			at.Hint = "put it into a pgpass file, a password_file or the environment"
			return value{}, &at
		}
	}
	return l.newValue(s.Value, at)
}
