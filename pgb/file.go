package pgb

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// FileError says why PgBouncer refuses a configuration file. It never repeats a value.
type FileError struct {
	File    string // as PgBouncer calls it: without the root that it was read through
	Line    int    // from 1; 0: the file as a whole
	Key     string // may be empty
	Problem string
	Err     error // of the system, where there is one
}

func (e *FileError) Error() string {
	s := e.File
	if e.Line > 0 {
		s += fmt.Sprintf(":%d", e.Line)
	}
	if e.Key != "" {
		s += ": " + e.Key
	}
	s += ": " + e.Problem
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *FileError) Unwrap() error { return e.Err }

// What is read at most. PgBouncer itself bounds the depth only.
const (
	maxIncludeDepth = 10
	maxFileSize     = 4 << 20
	maxFiles        = 2000
	maxTotalSize    = 32 << 20
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

// CheckAny is [File.Check] where the version cannot be asked: what no version from 1.18 to 1.26 takes.
func (f *File) CheckAny() error {
	settings := make([]Setting, 0, len(kinds))
	for key := range kinds {
		settings = append(settings, Setting{Key: key, Changeable: true})
	}
	return f.Check(settings)
}

// ReadFile reads a pgbouncer.ini and what it includes. root is put before the file's path and those of %include, for the
// file of a process in another container: "/proc/PID/root" (see [Process.ConfigFile]), or "" for this one's own root; symbolic
// links are followed inside of it. A relative %include starts, as in PgBouncer, at the working directory of the process, which is
// known when root names one; otherwise it is looked for in "/", where daemons and containers work, and beside the file.
//
// The error is a [*FileError] for what every version refuses: the syntax, a section or file that is missing. What depends
// on the version, unknown keys and values that do not fit, [File.Check] tells. It blocks on nothing but the disk; files
// that are no regular ones are not opened for reading.
func ReadFile(path, root string) (*File, error) {
	r := &fileReader{file: &File{Path: path, comments: map[string]string{}}, root: root}
	defer r.close()
	if err := r.open(); err != nil {
		return nil, &FileError{File: path, Problem: "cannot be read", Err: err}
	}
	if err := r.read(path, 0, nil); err != nil {
		return nil, err
	}
	if len(r.file.main) == 0 {
		return nil, &FileError{File: path, Problem: "has no section [pgbouncer]"}
	}
	return r.file, nil
}

type fileReader struct {
	file    *File
	root    string
	fd      int // of the root; -1: paths are opened as they are
	section string
	total   int
}

func (r *fileReader) open() error {
	r.fd = -1
	if r.root == "" || filepath.Clean(r.root) == "/" {
		return nil
	}
	fd, err := unix.Open(r.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: r.root, Err: err}
	}
	r.fd = fd
	return nil
}

func (r *fileReader) close() {
	if r.fd >= 0 {
		_ = unix.Close(r.fd)
	}
}

// openIn opens a path as a process whose root is the directory fd would.
func openIn(fd int, path string, flags int) (int, error) {
	for {
		got, err := unix.Openat2(fd, path, &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT})
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN): // EAGAIN: something was renamed meanwhile
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
			// Before Linux 5.6, or a container run-time that forbids what it does not know: links are followed in our root then.
			return unix.Open(fmt.Sprintf("/proc/self/fd/%d/%s", fd, path), flags|unix.O_CLOEXEC, 0)
		default:
			return got, err
		}
	}
}

func (r *fileReader) content(name string) ([]byte, error) {
	var fd int
	var err error
	// O_NONBLOCK: a pipe without a writer must not hold us.
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC
	if r.fd >= 0 {
		fd, err = openIn(r.fd, name, flags)
	} else {
		fd, err = unix.Open(name, flags, 0)
	}
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, nil // PgBouncer reads nothing from it, and goes on
	case !info.Mode().IsRegular():
		if st, ok := info.Sys().(*unix.Stat_t); ok && st.Rdev == unix.Mkdev(1, 3) || name == "/dev/null" {
			return nil, nil
		}
		return nil, errors.New("not a regular file")
	}
	content, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxFileSize {
		return nil, fmt.Errorf("larger than %d bytes", maxFileSize)
	}
	if r.total += len(content); r.total > maxTotalSize {
		return nil, fmt.Errorf("with it, more than %d bytes in all", maxTotalSize)
	}
	return content, nil
}

// lookFor is where a file may be.
func (r *fileReader) lookFor(name string) []string {
	if path.IsAbs(name) {
		return []string{name}
	}
	if cwd, ok := workingDirectory(r.root); ok {
		return []string{path.Join(cwd, name)}
	}
	if r.root == "" && len(r.file.paths) == 0 {
		return []string{name} // the file itself, as the caller calls it
	}
	return []string{path.Join("/", name), path.Join(path.Dir(r.file.Path), name)}
}

// isspace is C's, in the locale "C".
func isspace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func isKey(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-' || c == '*'
}

func isblank(c byte) bool { return c == ' ' || c == '\t' }

// read reads one file; from is the %include.
func (r *fileReader) read(name string, depth int, from *place) error {
	fail := func(err error) error {
		e := &FileError{File: name, Problem: "cannot be read", Err: err}
		if from != nil {
			e = &FileError{File: from.file, Line: from.line, Key: "%include", Problem: untilValue(name) + " cannot be read", Err: err}
		}
		return e
	}
	if len(r.file.paths) >= maxFiles {
		return fail(fmt.Errorf("more than %d files", maxFiles))
	}
	if name == "" {
		return fail(unix.ENOENT)
	}
	var content []byte
	var err error
	for _, at := range r.lookFor(name) {
		if content, err = r.content(at); !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return fail(err)
	}
	r.file.paths = append(r.file.paths, name)
	// PgBouncer takes the file for a C string.
	text, _, _ := strings.Cut(string(content), "\x00")
	r.file.comments[name] = commentsOf(text)
	return r.parse(name, text, depth)
}

func (r *fileReader) parse(name, text string, depth int) error {
	pos, line := 0, 1
	at := func(i int) byte { // 0 at the end, like C
		if i < len(text) {
			return text[i]
		}
		return 0
	}
	skip := func(is func(byte) bool) {
		for pos < len(text) && is(text[pos]) {
			if text[pos] == '\n' {
				line++
			}
			pos++
		}
	}
	restOfLine := func() string {
		start := pos
		skip(func(c byte) bool { return c != '\n' })
		return strings.TrimRightFunc(text[start:pos], func(c rune) bool { return c < 0x80 && isspace(byte(c)) })
	}
	bad := func(key, problem string) error {
		return &FileError{File: name, Line: line, Key: key, Problem: problem}
	}
	for {
		skip(isspace)
		here := place{file: name, line: line}
		switch c := at(pos); {
		case pos >= len(text):
			return nil
		case strings.HasPrefix(text[pos:], "%include") && isblank(at(pos+len("%include"))):
			if depth >= maxIncludeDepth {
				return bad("%include", fmt.Sprintf("more than %d levels deep", maxIncludeDepth))
			}
			pos += len("%include")
			skip(isblank)
			if err := r.read(restOfLine(), depth+1, &here); err != nil {
				return err
			}
		case c == '#' || c == ';':
			restOfLine()
		case c == '[':
			pos++
			start := pos
			skip(func(c byte) bool { return c != ']' && c != '\n' })
			if at(pos) != ']' {
				return bad("", "a section without its ]")
			}
			here.name = text[start:pos]
			pos++
			r.begin(here)
		default:
			start := pos
			skip(isKey)
			here.name = text[start:pos]
			skip(isblank)
			if at(pos) != '=' {
				return bad("", "not a line \"key = value\"")
			}
			pos++
			skip(isblank)
			value := restOfLine()
			if err := r.entry(here, value); err != nil {
				return err
			}
		}
	}
}

func (r *fileReader) begin(at place) {
	r.section = at.name
	switch r.section {
	case "pgbouncer":
		r.file.main = append(r.file.main, len(r.file.entries))
	case "databases", "users":
	default:
		at.name = untilValue(at.name)
		r.file.sections = append(r.file.sections, at)
	}
}

func (r *fileReader) entry(at place, value string) error {
	e := entry{place: at, section: r.section}
	bad := func(problem string) error {
		return &FileError{File: at.file, Line: at.line, Key: e.label(), Problem: problem}
	}
	var err error
	switch e.section {
	case "":
		return bad("stands before the first section")
	case "pgbouncer":
		e.value = value
		if mayHoldSecret(at.name) {
			e.sum, e.value = digestOf(value), hide(value)
		}
	case "databases":
		if at.name == adminDatabase {
			return bad("this name is reserved for the admin console")
		}
		e.conn, err = parseConnString(value)
		if err != nil && at.name == "*" {
			// PgBouncer looks into this one when a client comes.
			e.conn, err = &connString{bad: true}, nil
		}
	case "users", "peers":
		e.conn, err = parseConnString(value)
	}
	if err != nil {
		return bad(err.Error())
	}
	if problem := e.fixedProblem(); problem != "" {
		return bad(problem)
	}
	r.file.entries = append(r.file.entries, e)
	return nil
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

// connString is what stands after "name =" outside of [pgbouncer].
type connString struct {
	pairs  [][2]string // secrets without their value
	secret bool        // there is one
	bad    bool
}

func (c *connString) get(key string) (value string, ok bool) {
	for _, p := range c.pairs {
		if p[0] == key {
			value, ok = p[1], true // the last one counts
		}
	}
	return value, ok
}

// connShown are the parameters whose values are kept: those that SHOW DATABASES shows and a few that are checked. connect_query, for
// one, may have a password in it, and nothing shows it.
var connShown = regexp.MustCompile(`^(host|port|dbname|user|pool_size|min_pool_size|reserve_pool|reserve_pool_size|pool_mode|max_db_connections|max_db_client_connections|server_lifetime|load_balance_hosts)$`)

var errConnString = errors.New("syntax error in the connection string")

// parseConnString takes it apart as PgBouncer does: only blanks separate, a quoted value may be followed by anything,
// whose first byte is lost, and a value must not be empty.
func parseConnString(s string) (*connString, error) {
	c := &connString{}
	pos := 0
	blanks := func() {
		for pos < len(s) && s[pos] == ' ' {
			pos++
		}
	}
	for {
		blanks()
		if pos >= len(s) {
			return c, nil
		}
		start := pos
		for pos < len(s) && s[pos] != '=' && s[pos] != ' ' {
			pos++
		}
		key := s[start:pos]
		blanks()
		if key == "" || pos >= len(s) || s[pos] != '=' {
			return nil, errConnString
		}
		pos++
		blanks()
		var value strings.Builder
		if pos < len(s) && s[pos] == '\'' {
			pos++
			for {
				if pos >= len(s) {
					return nil, errConnString
				}
				if s[pos] == '\'' {
					pos++
					if pos >= len(s) || s[pos] != '\'' {
						break
					}
				}
				value.WriteByte(s[pos])
				pos++
			}
		} else {
			start := pos
			for pos < len(s) && s[pos] != ' ' {
				pos++
			}
			value.WriteString(s[start:pos])
		}
		if pos < len(s) {
			pos++
		}
		switch {
		case value.Len() == 0:
			return nil, errConnString
		case connShown.MatchString(key):
			c.pairs = append(c.pairs, [2]string{key, value.String()})
		default:
			c.secret = c.secret || mayHoldSecret(key)
			c.pairs = append(c.pairs, [2]string{key, hidden})
		}
	}
}

// untilValue is a path or the name of a section for a message, up to where it looks like something else: a line that was torn or
// joined by an editor may have become the path of an %include, with the password that was in it.
func untilValue(name string) string {
	if i := strings.IndexAny(name, "= \t\"'"); i >= 0 {
		name = name[:i] + "…"
	}
	return printable(name)
}

// printable is a piece of a file for people.
func printable(s string) string {
	const most = 256
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return '?'
		}
		return c
	}, s), "?")
}
