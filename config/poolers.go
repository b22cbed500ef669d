package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgbaton/pgbaton/config/yamlfile"
)

func (l *loader) loadPoolers(inFile yamlfile.Value) {
	var given []value
	fromElsewhere := false
	for _, s := range l.options.Set {
		if s.Key == "pooler" {
			fromElsewhere = true
			if v, err := l.flagValue(s); !l.wrong(err) {
				given = append(given, v)
			}
		}
	}
	if raw, ok := l.env("PGBATON_POOLER"); ok && !fromElsewhere {
		fromElsewhere = true
		for line := range strings.Lines(raw) {
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			if v, err := l.newValue(line, Error{Name: "PGBATON_POOLER"}); !l.wrong(err) {
				given = append(given, v)
			}
		}
	}
	for _, v := range given {
		p := Pooler{Resolve: "all"}
		if !l.wrong(setDSN(&p.DSN)(v)) {
			l.config.Poolers = append(l.config.Poolers, p)
		}
	}
	if !fromElsewhere && !inFile.IsNull() {
		l.poolersOf(inFile)
	}
	if password, ok := l.env("PGBATON_POOLER_PASSWORD"); ok {
		for i := range l.config.Poolers {
			// A file of its own says more about one pooler than a variable about all.
			if p := &l.config.Poolers[i]; p.Password == "" && p.DSN != "" {
				p.Password = password
			}
		}
	}
}

func (l *loader) poolersOf(list yamlfile.Value) {
	path := l.config.File
	items, ok := list.Sequence()
	if !ok {
		l.wrong(&Error{File: path, Line: list.Line(), Name: "poolers", Problem: "must be a list", Hint: "write - dsn: ... below it"})
		return
	}
	for i, item := range items {
		if p, ok := l.poolerOf(path, item, fmt.Sprintf("poolers[%d]", i)); ok {
			l.config.Poolers = append(l.config.Poolers, p)
		}
	}
}

// poolerOf is one entry. ok is false where a value in it is wrong: nobody knows then which pooler was meant, or what of it. A key that
// is not known is told and passed over.
func (l *loader) poolerOf(path string, item yamlfile.Value, prefix string) (p Pooler, ok bool) {
	at := &Error{File: path, Line: item.Line(), Name: prefix}
	entries, isMapping := item.Mapping()
	if !isMapping {
		at.Problem, at.Hint = "must have keys", "write - dsn: ..."
		return p, !l.wrong(at)
	}
	p, ok = Pooler{Resolve: "all"}, true
	bindings := l.poolerBindings(&p)
	for _, e := range entries {
		name, _ := e.Key.Scalar()
		key := prefix + "." + name
		if name == "databases" {
			var err error
			p.Databases, err = l.databasesOf(path, e, key)
			ok = !l.wrong(err) && ok
			continue
		}
		if name == "follow" {
			if e.Value.IsNull() {
				continue
			}
			var fine bool
			p.Follow, fine = l.followOf(path, e, key)
			ok = fine && ok
			continue
		}
		b := slices.IndexFunc(bindings, func(b binding) bool { return b.key == name })
		if b < 0 {
			l.wrong(unknownKey(path, e, prefix, Keys()))
			continue
		}
		if e.Value.IsNull() {
			continue
		}
		v, err := l.scalarValue(path, e.Value, e.Key.Line(), key)
		if err == nil {
			err = bindings[b].set(v)
		}
		ok = !l.wrong(err) && ok
	}
	if ok && p.DSN == "" && p.Pidfile == "" && len(l.problems) == 0 {
		at.Problem = "has neither dsn nor pidfile"
		l.wrong(at)
	}
	ok = ok && l.checkFollow(path, item, prefix, p)
	return p, ok && (p.DSN != "" || p.Pidfile != "")
}

func (l *loader) databasesOf(path string, e yamlfile.Entry, key string) (Databases, error) {
	at := Error{File: path, Line: e.Key.Line(), Name: key}
	if items, ok := e.Value.Sequence(); ok {
		names := []string{}
		for _, item := range items {
			v, err := l.scalarValue(path, item, item.Line(), key)
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
	if e.Value.IsNull() {
		return Databases{}, nil
	}
	v, err := l.scalarValue(path, e.Value, e.Key.Line(), key)
	if err != nil {
		return Databases{}, err
	}
	var word string
	if err := setEnum(&word, "all", "auto")(v); err != nil {
		return Databases{}, v.fail(fmt.Sprintf("%q is none of all, auto", v.raw), "a single name is written as a list, [name]", nil)
	}
	return Databases{Auto: word == "auto"}, nil
}
