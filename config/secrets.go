package config

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/pgbaton/pgbaton/config/yamlfile"
)

// holdsSecret reports whether the file itself has a password in it.
func (l *loader) holdsSecret(poolers yamlfile.Value) bool {
	for _, key := range []string{"postgres", "resume.route"} {
		if v, ok := l.inFile[key]; ok && holdsPassword(v.raw) {
			return true
		}
	}
	items, _ := poolers.Sequence()
	for _, item := range items {
		entries, _ := item.Mapping()
		for _, e := range entries {
			dsn, _ := e.Value.Scalar()
			if key, _ := e.Key.Scalar(); key == "dsn" && holdsPassword(dsn) {
				return true
			}
		}
	}
	return false
}

// checkPassfiles does with pgpass files what libpq does and pgconn does not: one that others can read or write is told and not used.
func (l *loader) checkPassfiles() {
	c := &l.config
	told := map[string]bool{}
	check := func(dsn *string, password string) {
		if *dsn == "" || password != "" || holdsPassword(*dsn) {
			return
		}
		if _, ok := l.env("PGPASSWORD"); ok {
			return
		}
		path := l.passfile(*dsn)
		problem := passfileProblem(path)
		if problem == "" {
			return
		}
		*dsn = with(*dsn, "passfile", "")
		if !told[path] {
			l.warn(&Error{File: path, Problem: "the password file is not used: " + problem})
		}
		told[path] = true
	}
	check(&c.Postgres, "")
	check(&c.Resume.Route, "")
	for i := range c.Poolers {
		check(&c.Poolers[i].DSN, c.Poolers[i].Password)
	}
}

// passfile is the file that pgconn would read for a connection string.
func (l *loader) passfile(dsn string) string {
	if path, ok := settingsOf(dsn)["passfile"]; ok {
		return path
	}
	if path, ok := l.env("PGPASSFILE"); ok {
		return path
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".pgpass")
}

// passfileProblem is why libpq (17) does not use a password file; "" when it does, or there is none. libpq lets nobody but the owner
// have rights on it. One exception, which libpq makes for private keys only: the group may read a file of root's, because in Kubernetes
// no secret can be handed to another user than root in any other way.
func passfileProblem(path string) string {
	if path == "" {
		return ""
	}
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	mode := info.Mode()
	if !mode.IsRegular() {
		return "it is no regular file"
	}
	forbidden := os.FileMode(0o077)
	if ownedByRoot(info) {
		forbidden = 0o037
	}
	if mode.Perm()&forbidden != 0 {
		return fmt.Sprintf("others can read or write it (mode %04o), and libpq would not use it either: chmod 600", mode.Perm())
	}
	return ""
}
