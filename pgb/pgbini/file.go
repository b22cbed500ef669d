package pgbini

import (
	"strings"
)

// File is a pgbouncer.ini with what it includes, read as PgBouncer reads it (libusual's cfparser; measured on 1.18, 1.24
// and 1.26, which agree on the syntax). Values that may be secrets are not kept.
type File struct {
	Path string

	entries  []entry  // of all sections, in the order in which they are read
	sections []place  // where the sections that PgBouncer 1.18 does not know begin
	main     []int    // where in entries each [pgbouncer] begins: it puts everything back to the defaults
	paths    []string // all files read
	comments map[string]string
}

// place is a line of a file.
type place struct {
	file string
	line int
	name string
}

// entry is a line "key = value".
type entry struct {
	place
	section string
	value   string // of [pgbouncer]; "***" for a secret
	sum     digest // of a secret
	conn    *connString
}

// Paths are the files that were read: the file itself, then what it includes.
func (f *File) Paths() []string { return f.paths }

// Comments are the comment lines of one of [File.Paths], each in its place: the other lines are empty. (Those may hold secrets.)
func (f *File) Comments(path string) string { return f.comments[path] }

// commentsOf leaves of a text what stands in lines that are comments as a whole.
func commentsOf(text string) string {
	var s strings.Builder
	for line := range strings.Lines(text) {
		if begin := strings.TrimLeft(line, " \t"); begin != "" && (begin[0] == ';' || begin[0] == '#') {
			s.WriteString(line)
		} else if strings.HasSuffix(line, "\n") {
			s.WriteByte('\n')
		}
	}
	return s.String()
}

// Port is where the file has PgBouncer listen: listen_port, or PgBouncer's own default (1.18 to 1.26). ok is false where it is no port.
func (f *File) Port() (port uint16, ok bool) {
	value, _, _, ok := f.Setting("listen_port")
	if !ok {
		return 6432, true
	}
	n, ok := strtol(value)
	return uint16(n), ok && n >= 0 && n <= 0xffff
}

// SocketDir is the folder of the Unix socket: unix_socket_dir, or PgBouncer's own default, which is Debian's too. "" is none.
func (f *File) SocketDir() string {
	if value, _, _, ok := f.Setting("unix_socket_dir"); ok {
		return value
	}
	return "/tmp"
}

// Setting is a key of [pgbouncer] as the file has it, with where it stands; ok is false where it does not.
func (f *File) Setting(key string) (value, file string, line int, ok bool) {
	e := f.inFile()[key]
	if e == nil {
		return "", "", 0, false
	}
	return e.value, e.place.file, e.place.line, true
}

// defaults are PgBouncer's own (1.24, 1.26) for settings that decide whether others count.
var defaults = map[string]string{"auth_type": "md5", "client_tls_sslmode": "disable", "server_tls_sslmode": "prefer"}

// InForce is what a setting of [pgbouncer] would be with this file: what the file says, or else the default of the version whose settings
// these are; without settings, that of 1.26.
func (f *File) InForce(key string, running []Setting) string {
	if value, _, _, ok := f.Setting(key); ok {
		return value
	}
	for _, s := range running {
		if s.Key == key {
			return s.Default
		}
	}
	return defaults[key]
}

// inFile are the lines that count. A further [pgbouncer] takes back all that stood in those before, except for what has no default.
func (f *File) inFile() map[string]*entry {
	m := map[string]*entry{}
	next := 0
	for i := range f.entries {
		for next < len(f.main) && f.main[next] <= i {
			f.forget(m)
			next++
		}
		if e := &f.entries[i]; e.section == "pgbouncer" {
			m[e.name] = e
		}
	}
	if next < len(f.main) {
		f.forget(m)
	}
	return m
}

func (f *File) forget(m map[string]*entry) {
	for k := range m {
		if !kept[k] && !elsewhere[k] {
			delete(m, k)
		}
	}
}

// label is how an entry is called in errors and differences.
func (e *entry) label() string {
	name := e.name
	if name == "" {
		name = `""`
	}
	switch e.section {
	case "databases":
		return "database " + name
	case "users":
		return "user " + name
	case "peers":
		return "peer " + name
	}
	return name
}
