package pgbini

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/process"
)

// What is read at most. PgBouncer itself bounds the depth only.
const (
	maxIncludeDepth = 10
	maxFileSize     = 4 << 20
	maxFiles        = 2000
	maxTotalSize    = 32 << 20
)

// ReadFile reads a pgbouncer.ini and what it includes. root is put before the file's path and those of %include, for the
// file of a process in another container: "/proc/PID/root" (see [Process.ConfigFile]), or "" for this one's own root; symbolic
// links are followed inside of it. A relative %include starts, as in PgBouncer, at the working directory of the process, which is
// known when root names one; otherwise it is looked for in "/", where daemons and containers work, and beside the file.
//
// The error is a [*file.Problem] for what every version refuses: the syntax, a section or file that is missing. What depends
// on the version, unknown keys and values that do not fit, [File.Check] tells. It blocks on nothing but the disk; files
// that are no regular ones are not opened for reading.
func ReadFile(path, root string) (*File, error) {
	r := &fileReader{file: &File{Path: path, comments: map[string]string{}}, root: root}
	defer r.close()
	if err := r.open(); err != nil {
		return nil, unreadable(place{file: path}, "", "cannot be read", err)
	}
	if err := r.read(path, 0, nil); err != nil {
		return nil, err
	}
	if len(r.file.main) == 0 {
		return nil, &file.Problem{File: path, Problem: "has no section [pgbouncer]"}
	}
	return r.file, nil
}

func unreadable(at place, name, problem string, err error) error {
	return &file.Problem{File: at.file, Line: at.line, Name: name, Problem: problem + ": " + err.Error(), Err: err}
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

func (r *fileReader) content(name string) ([]byte, error) {
	var fd int
	var err error
	// O_NONBLOCK: a pipe without a writer must not hold us.
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC
	if r.fd >= 0 {
		fd, err = process.OpenIn(r.fd, name, flags)
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
	if cwd, ok := process.WorkingDirectory(r.root); ok {
		return []string{path.Join(cwd, name)}
	}
	if r.root == "" && len(r.file.paths) == 0 {
		return []string{name} // the file itself, as the caller calls it
	}
	return []string{path.Join("/", name), path.Join(path.Dir(r.file.Path), name)}
}

func isKey(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-' || c == '*'
}

func isblank(c byte) bool { return c == ' ' || c == '\t' }

// read reads one file; from is the %include.
func (r *fileReader) read(name string, depth int, from *place) error {
	fail := func(err error) error {
		if from != nil {
			return unreadable(*from, "%include", untilValue(name)+" cannot be read", err)
		}
		return unreadable(place{file: name}, "", "cannot be read", err)
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
		return &file.Problem{File: name, Line: line, Name: key, Problem: problem}
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
		return &file.Problem{File: at.file, Line: at.line, Name: e.label(), Problem: problem}
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
		if at.name == AdminDatabase {
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
