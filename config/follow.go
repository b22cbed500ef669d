package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/config/yamlfile"
)

// Follow says that the pooler of an entry is moved to the leader: pgbaton writes host and port of some of its databases.
type Follow struct {
	// Elsewhere: the poolers of this entry stand beside other members, and the pgbaton there moves them. Nothing else is set then.
	Elsewhere bool

	File      string        // where the entries stand
	Databases []string      // the entries whose address is pgbaton's; "*" is the one for all others
	Readers   []string      // entries for reading: led to another replica while this member's server is not back; nil: they stay
	LocalHost string        // what they say while this member leads
	LocalPort uint16        // and this
	Back      string        // when a pooler that forwards leads to its own server again: one of the Back constants
	BackAfter time.Duration // with BackDuration
}

// When a pooler goes back.
const (
	BackIdle     = "idle"     // the clients that were connected when it was moved have gone
	BackNever    = "never"    // not before this member leads
	BackDuration = "duration" // so long after it was moved
)

// String is for logs.
func (f *Follow) String() string {
	switch {
	case f == nil:
		return "no"
	case f.Elsewhere:
		return "elsewhere"
	}
	return f.File
}

// followKeys are those below follow.
var followKeys = []string{"elsewhere", "file", "databases", "local", "back", "readers"}

// optionalFollowKeys need not be set.
var optionalFollowKeys = []string{"back", "readers"}

func (l *loader) followOf(path string, e yamlfile.Entry, prefix string) (*Follow, bool) {
	at := &Error{File: path, Line: e.Key.Line(), Name: prefix}
	entries, isMapping := e.Value.Mapping()
	if !isMapping {
		at.Problem, at.Hint = "must have keys", "write file, databases and local below it"
		return nil, !l.wrong(at)
	}
	f, ok := &Follow{Back: BackIdle}, true
	set := map[string]bool{}
	for _, e := range entries {
		name, _ := e.Key.Scalar()
		key := prefix + "." + name
		if !slices.Contains(followKeys, name) {
			l.wrong(unknownKey(path, e, prefix, Keys()))
			ok = false
			continue
		}
		if e.Value.IsNull() {
			continue
		}
		set[name] = true
		ok = !l.wrong(l.followKey(f, path, e, name, key)) && ok
	}
	if !ok {
		return nil, false
	}
	apart := l.config.Apart()
	for _, name := range followKeys[1:] {
		ofMember := name == "local" || slices.Contains(optionalFollowKeys, name)
		switch {
		case apart && ofMember && set[name]:
			at.Problem, at.Hint = "has "+name+", and there is no member on this machine (patroni.urls)", "file and databases are enough"
		case apart && ofMember:
			continue
		case f.Elsewhere && set[name]:
			at.Problem, at.Hint = "has both elsewhere and "+name, "what moves a pooler is set on the member that it stands beside"
		case !f.Elsewhere && !set[name] && !slices.Contains(optionalFollowKeys, name):
			at.Problem, at.Hint = "has no "+name, "file, databases and local are needed; or elsewhere: true"
		default:
			continue
		}
		return nil, !l.wrong(at)
	}
	if apart {
		f.Back = BackNever
	}
	if i := slices.IndexFunc(f.Readers, func(name string) bool { return slices.Contains(f.Databases, name) }); i >= 0 {
		at.Problem = fmt.Sprintf("has %q in databases and in readers", f.Readers[i])
		at.Hint = "an entry leads to the leader, or to a replica"
		return nil, !l.wrong(at)
	}
	return f, true
}

func (l *loader) followKey(f *Follow, path string, e yamlfile.Entry, name, key string) error {
	if name == "databases" || name == "readers" {
		if _, isList := e.Value.Sequence(); !isList {
			return &Error{File: path, Line: e.Key.Line(), Name: key, Problem: "must be a list of names", Hint: `write [app, "*"]`}
		}
		named, err := l.databasesOf(path, e, key)
		if name == "readers" {
			f.Readers = named.Names
		} else {
			f.Databases = named.Names
		}
		return err
	}
	v, err := l.scalarValue(path, e.Value, e.Key.Line(), key)
	if err != nil {
		return err
	}
	switch name {
	case "elsewhere":
		var word string
		err = setEnum(&word, "true", "false")(v)
		f.Elsewhere = word == "true"
	case "file":
		err = setPath(&f.File)(v)
	case "local":
		err = f.setLocal(v)
	case "back":
		if f.Back = v.text; v.text != BackIdle && v.text != BackNever {
			f.Back = BackDuration
			if err = setDuration(&f.BackAfter)(v); err != nil {
				err = v.fail(fmt.Sprintf("%q is none of idle, never, and no duration", clip(v.raw)), "", nil)
			}
		}
	}
	return err
}

var localHost = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_./:@-]{1,255}$`) })

func (f *Follow) setLocal(v value) error {
	f.LocalPort = 5432
	for word := range strings.FieldsSeq(v.text) {
		key, text, _ := strings.Cut(word, "=")
		switch key {
		case "host":
			f.LocalHost = text
		case "port":
			port, err := strconv.ParseUint(text, 10, 16)
			if err != nil || port == 0 {
				return v.fail("has no possible port", "", nil)
			}
			f.LocalPort = uint16(port)
		default:
			return v.fail("says more than host and port", "write host=/run/postgresql port=5432", nil)
		}
	}
	if !localHost().MatchString(f.LocalHost) {
		return v.fail("has no host as PgBouncer reads it", "write host=/run/postgresql port=5432", nil)
	}
	return nil
}

// checkFollow finds what does not go together in an entry, and between entries.
func (l *loader) checkFollow(path string, item yamlfile.Value, prefix string, p Pooler) bool {
	if p.Follow == nil {
		return true
	}
	at := &Error{File: path, Line: item.Line(), Name: prefix + ".follow"}
	switch {
	case p.DSN == "":
		at.Problem, at.Hint = "needs a dsn", "who moves a pooler asks its console where it leads"
	case p.Databases.Auto || p.Databases.Names != nil:
		at.Problem = "does not go together with databases: under PAUSE of single databases a log-in that comes meanwhile fails " +
			"(PgBouncer issue 498)"
		at.Hint = "leave databases out: the whole pooler is paused"
	case p.Follow.Elsewhere:
		return true
	case severalHosts(p.DSN):
		at.Problem = "is for one pooler, and the dsn has several hosts"
		at.Hint = "list those of other members in an entry of their own, with follow: {elsewhere: true}"
	case slices.ContainsFunc(l.config.Poolers, func(o Pooler) bool { return o.Follow != nil && o.Follow.File == p.Follow.File }):
		at.Problem, at.Hint = p.Follow.File+" is another pooler's file already", "each pooler needs a file of its own, by %include"
	default:
		return true
	}
	return !l.wrong(at)
}

func severalHosts(dsn string) bool {
	c, err := parse(dsn)
	if err != nil {
		return false // told elsewhere
	}
	for _, f := range c.Fallbacks {
		if f.Host != c.Host || f.Port != c.Port {
			return true
		}
	}
	return false
}
