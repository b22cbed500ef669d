package setup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/health"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/peer"
)

// Options are what a person has said. What is empty is looked for.
type Options struct {
	File       string   // that is written, absolute
	DryRun     bool     // nothing is written
	Patroni    string   // Patroni's own file or folder
	PatroniURL string   // its REST API, where it has no file that we can read
	Postgres   string   // this member's server, where Patroni's file does not say it
	PgBouncers []string // files of PgBouncers on this machine
	Poolers    []string // connection strings of further consoles
	StateDir   string
	Hooks      string // the directory of the links that Patroni is to run
	UID        int    // Patroni's user
	Log        *slog.Logger
	LookupEnv  func(string) (string, bool)
	PatroniEnv func(name, patroniConfig string) (string, bool) // as for [config.Load]
}

// Result is what was found out and written.
type Result struct {
	Config  *config.Config
	Text    string   // of the file
	Found   []string // sentences: what was read and who has answered
	Todo    []string // what is left to a person
	Patroni string   // lines for Patroni's configuration; "" where it has them
}

// patroniPlaces are where packages put Patroni's configuration: Debian's, PGDG's rpm, and what Patroni's own documentation writes.
var patroniPlaces = []string{"/etc/patroni/config.yml", "/etc/patroni/patroni.yml", "/etc/patroni.yml"}

const pgbouncerPlace = "/etc/pgbouncer/pgbouncer.ini"

const maxFiles = 100 // of PgBouncers that somebody may name

// Run finds out what it can and writes the file. It asks Patroni and the poolers once, 3 s at most, and changes nothing but the file.
//
// The error is [os.ErrExist] where there is a file already, which is left as it is; one of package config where what was said, or what
// stands in Patroni's configuration, cannot be used: then nothing was written either.
func Run(ctx context.Context, o Options) (Result, error) {
	var r Result
	if _, err := os.Lstat(o.File); !o.DryRun && !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = &os.PathError{Op: "create", Path: o.File, Err: os.ErrExist}
		}
		return r, err
	}
	d := draft{url: o.PatroniURL, postgres: o.Postgres, stateDir: o.StateDir, generated: time.Now()}
	if d.stateDir == "" {
		d.stateDir = "/run/pgbaton"
	}
	d.patroni = r.findPatroni(o)
	if d.patroni == "" {
		if d.url == "" {
			d.url = "http://127.0.0.1:8008"
		}
		if d.postgres == "" {
			d.postgres = "host=/var/run/postgresql user=postgres dbname=postgres"
		}
	}
	if err := r.findPoolers(o, &d); err != nil {
		return r, err
	}
	if err := r.load(o, &d); err != nil {
		return r, err
	}
	r.ask(ctx, o, &d)
	if err := r.load(o, &d); err != nil { // with the answers
		return r, err
	}
	r.hooks(o, d.patroni)
	if o.DryRun {
		return r, nil
	}
	return r, create(o.File, r.Text)
}

// findPatroni is the path of Patroni's own configuration, "" where none is found.
func (r *Result) findPatroni(o Options) string {
	if o.Patroni != "" {
		return o.Patroni
	}
	if o.PatroniURL != "" {
		return ""
	}
	if p, err := patroni.FindProcess(""); err == nil {
		defer p.Close()
		if path, err := p.ConfigPath(); err == nil {
			own := path
			if _, inside, ok := strings.Cut(path, "/root/"); ok && strings.HasPrefix(path, "/proc/") {
				own = "/" + inside // a process of another container has other files there
			}
			if sameFile(path, own) {
				r.found("Patroni runs as process %d with %s.", p.PID, own)
				return own
			}
		}
	}
	for _, place := range patroniPlaces {
		if _, err := os.Stat(place); err == nil {
			r.found("Patroni's configuration is %s.", place)
			return place
		}
	}
	r.todo("Patroni's own configuration was not found: name it with --patroni-config, or mend patroni.url and postgres in the file")
	return ""
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// findPoolers fills in the entries. A file that was named and cannot be used is an error; one that was found only is told.
func (r *Result) findPoolers(o Options, d *draft) error {
	files, named := o.PgBouncers, len(o.PgBouncers) > 0
	if len(files) > maxFiles {
		return fmt.Errorf("%d files of PgBouncers: at most %d are read", len(files), maxFiles)
	}
	if !named {
		if _, err := os.Stat(pgbouncerPlace); err == nil {
			files = []string{pgbouncerPlace}
		}
	}
	for _, path := range files {
		p, todo, err := poolerOf(path, o.UID)
		if err != nil && named {
			return err
		}
		if err != nil {
			r.todo("no entry was made of %s: %s", path, err)
			continue
		}
		r.found("%s is a PgBouncer's on this machine.", path)
		d.poolers = append(d.poolers, p)
		r.Todo = append(r.Todo, todo...)
	}
	for _, dsn := range o.Poolers {
		p, todo := namedPooler(dsn)
		d.poolers = append(d.poolers, p)
		for _, text := range todo {
			if !slices.Contains(r.Todo, text) { // of several one file has the password
				r.Todo = append(r.Todo, text)
			}
		}
	}
	if len(d.poolers) == 0 {
		r.todo("no PgBouncer was found: name each with --pooler, or its file with --pgbouncer-config")
	}
	return nil
}

// load reads the draft as every command will read the file, from a file that nobody else sees.
func (r *Result) load(o Options, d *draft) error {
	r.Text = d.text()
	said := make([]config.Setting, 0, len(o.Poolers)+1)
	for _, dsn := range o.Poolers {
		said = append(said, config.Setting{Key: "pooler", Value: dsn, Source: "--pooler"})
	}
	if o.Postgres != "" {
		said = append(said, config.Setting{Key: "postgres", Value: o.Postgres, Source: "--postgres"})
	}
	dir, err := os.MkdirTemp("", "pgbaton-init-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "pgbaton.yaml")
	if err := os.WriteFile(path, []byte(r.Text), 0o600); err != nil {
		return err
	}
	// What is set in this shell is not what the hooks will see.
	env := func(name string) (string, bool) {
		if strings.HasPrefix(name, "PGBATON_") && name != "PGBATON_POOLER_PASSWORD" {
			return "", false
		}
		return o.LookupEnv(name)
	}
	options := config.Options{File: path, Set: said, LookOnly: true, LookupEnv: env, PatroniEnv: o.PatroniEnv}
	r.Config, err = config.Load(options) // what is refused in a flag, such as a password, comes into no file either
	if err == nil || config.IsStateDir(err) {
		options.Set = nil
		r.Config, err = config.Load(options)
	}
	r.Config.File = o.File
	switch e := err.(type) {
	case *config.Error:
		inFile(e, path, o.File)
	case config.Errors:
		for _, e := range e {
			inFile(e, path, o.File)
		}
	}
	if config.IsStateDir(err) {
		return nil // check tells it
	}
	return err
}

// inFile: an error names the file that would be written.
func inFile(e *config.Error, temporary, path string) {
	if e.File == temporary {
		e.File = path
	}
}

// ask has Patroni and the poolers say what they are.
func (r *Result) ask(ctx context.Context, o Options, d *draft) {
	s := health.Of(ctx, &member.Member{Config: r.Config, Log: o.Log})
	answer := func(format string, args ...any) {
		text := peer.Text(fmt.Sprintf(format, args...))
		r.Found = append(r.Found, text)
		d.answered = append(d.answered, text)
	}
	if s.Patroni.Error != "" {
		r.todo("Patroni's REST API did not answer: %s", peer.Text(s.Patroni.Error))
	} else {
		answer("Patroni %s answers: member %s of %s, ttl %v s.", s.Patroni.Version, s.Member, s.Scope, s.Patroni.TTLSeconds)
		const margin, usual = 5, 15
		if most := int(s.Patroni.TTLSeconds) - margin; s.Patroni.TTLSeconds > 0 && most < usual && most > 0 {
			d.budget = time.Duration(most) * time.Second
			answer("With this ttl a stop may be delayed by %d s at most.", most)
		}
	}
	for _, p := range s.Poolers {
		if p.Error != "" {
			r.todo("pooler %s did not answer: %s", peer.Text(p.Pooler), peer.Text(p.Error))
			continue
		}
		answer("PgBouncer %s answers at %s.", strings.TrimSuffix(p.Version, "/bouncer"), p.Pooler)
	}
	for _, text := range s.Unresolved {
		r.todo("%s", peer.Text(text))
	}
}

// events are the callbacks that all have to be set.
var events = []string{"on_role_change", "on_start", "on_restart", "on_stop"}

// hooks says which lines Patroni needs.
func (r *Result) hooks(o Options, path string) {
	guard, callback := filepath.Join(o.Hooks, "before_stop"), filepath.Join(o.Hooks, "on_role_change")
	if _, err := os.Stat(guard); err != nil {
		r.todo("%s is not there: pgbaton install %s makes it", guard, o.Hooks)
	}
	if path != "" {
		have, err := config.ReadPatroniHooks(path)
		all := have.BeforeStop == guard && !slices.ContainsFunc(events, func(e string) bool { return have.Callbacks[e] != callback })
		if err == nil && all {
			r.found("Patroni's configuration has the hooks.")
			return
		}
		if err == nil && have.BeforeStop != "" && have.BeforeStop != guard {
			r.todo("Patroni runs %s before a stop: put %s in its place", peer.Text(have.BeforeStop), guard)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "postgresql:\n  before_stop: %s\n  callbacks:\n", guard)
	for _, event := range events {
		fmt.Fprintf(&b, "    %s: %s\n", event, callback)
	}
	r.Patroni = b.String()
}

func (r *Result) found(format string, args ...any) {
	r.Found = append(r.Found, fmt.Sprintf(format, args...))
}
func (r *Result) todo(format string, args ...any) {
	r.Todo = append(r.Todo, fmt.Sprintf(format, args...))
}
