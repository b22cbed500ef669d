package configversion

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/pgbaton/pgbaton/file"
)

const (
	maxFile = 4 << 10
	maxLine = 16 << 20 // of the file with the line
	key     = "config-version"
)

var bom = []byte("\xef\xbb\xbf")

// File is a file whose whole content is the version. White space around it, and a byte order mark, are ignored.
type File struct {
	Path string
}

func (f File) String() string  { return f.Path }
func (f File) Paths() []string { return []string{f.Path} }

// Read reads the file, at most 4 KiB. It does not wait for anything but the file system, and looks at ctx only before it starts.
func (f File) Read(ctx context.Context) (Version, error) {
	in, err := open(ctx, f.Path)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return 0, err
	}
	if len(text) > maxFile {
		return 0, at(f.Path, 0, fmt.Errorf("longer than %d bytes: not a file with a configuration version", maxFile))
	}
	text = bytes.Trim(bytes.TrimPrefix(text, bom), asciiSpace)
	if len(text) == 0 {
		return 0, at(f.Path, 0, fmt.Errorf("%w: the file is empty", ErrAbsent))
	}
	v, err := Parse(string(text))
	if err != nil {
		return 0, at(f.Path, 0, err)
	}
	return v, nil
}

// Line is a comment line of a file that says the version and nothing else:
//
//	; config-version: 42
//	# config-version: 42
//
// One or more of the characters ; and # open the line, white space may stand between its parts, upper and lower case are the same.
// A comment at the end of a line that says something else is not looked at. The line may stand several times with the same version.
type Line struct {
	Path string
}

func (l Line) String() string  { return "the config-version line of " + l.Path }
func (l Line) Paths() []string { return []string{l.Path} }

// Read reads the file, at most 16 MiB. It does not wait for anything but the file system, and looks at ctx only before it starts. Where
// two lines differ the error is [ErrConflict].
func (l Line) Read(ctx context.Context) (Version, error) {
	in, err := open(ctx, l.Path)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	return scan(l.Path, in)
}

// InText is the version that a text says in the lines that [Line] looks for, for who has read the file already. name is the file's, for
// errors: those of [Line.Read].
func InText(name, text string) (Version, error) {
	return scan(name, strings.NewReader(text))
}

// scan reads a file of that name. What is wrong with its text is a [*file.Problem], and a read that fails is what the reader says.
func scan(name string, r io.Reader) (Version, error) {
	var (
		s    = scanner{name: name}
		buf  = make([]byte, bufSize)
		n    int  // bytes in buf, from a line's beginning or within one that is skipped
		size int  // of what was read
		skip bool // the rest of a line that was longer than buf
	)
	for eof := false; !eof; {
		got, err := io.ReadFull(r, buf[n:])
		n, size = n+got, size+got
		eof = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !eof {
			return 0, err
		}
		if size > maxLine {
			return 0, at(name, 0, fmt.Errorf("longer than %d MiB: not looked through for %s", maxLine>>20, key))
		}
		if size == n {
			n = copy(buf, bytes.TrimPrefix(buf[:n], bom))
		}
		from, to := 0, bytes.LastIndexByte(buf[:n], '\n')+1
		if skip {
			if from = bytes.IndexByte(buf[:n], '\n') + 1; from == 0 {
				n = 0
				continue
			}
			s.lines++
			skip = false
		}
		cut := to == 0 && !eof && n == len(buf)
		if cut || eof {
			to = n
		}
		if err := s.look(buf[from:to], cut); err != nil {
			return 0, err
		}
		skip = cut
		n = copy(buf, buf[to:n])
	}
	if !s.found {
		return 0, at(name, 0, fmt.Errorf("%w: no line \"# %s: NUMBER\"", ErrAbsent, key))
	}
	return s.version, nil
}

const bufSize = 64 << 10

// at is an error about a line of a file; line 0 is the file as a whole.
func at(name string, line int, err error) error {
	return &file.Problem{File: name, Line: line, Problem: err.Error(), Err: err}
}

// scanner is what was found so far.
type scanner struct {
	name    string
	lines   int // that lie behind
	found   bool
	version Version
	digits  string // that say it
	line    int
}

// look goes through whole lines; only the last of a file may have no end. cut: text is the beginning of one long line.
//
// It looks for the hyphen of the key, not for lines: that is what makes a read each second of a long file cheap.
func (s *scanner) look(text []byte, cut bool) error {
	for pos := 0; pos < len(text); {
		hyphen := bytes.IndexByte(text[pos:], '-')
		if hyphen < 0 {
			break
		}
		hyphen += pos
		pos = hyphen + 1
		begin := hyphen - strings.IndexByte(key, '-')
		if begin < 0 || len(text)-begin < len(key) || !bytes.EqualFold(text[begin:begin+len(key)], []byte(key)) ||
			!opensComment(text[:begin]) {
			continue
		}
		rest, finished := text[begin+len(key):], cut
		if end := bytes.IndexByte(rest, '\n'); end >= 0 {
			rest, finished = rest[:end], true
		}
		pos = begin + len(key) + len(rest)
		value, ok := bytes.CutPrefix(bytes.TrimLeft(rest, " \t"), []byte(":"))
		if !ok {
			continue
		}
		value = bytes.Trim(value, asciiSpace)
		digits := string(value[:min(len(value), 2*shownBytes)])
		if cut {
			digits += "…" // whatever follows, this is no version
		}
		line := s.lines + 1 + bytes.Count(text[:begin], []byte("\n"))
		switch v, err := Parse(digits); {
		// A line without an end may be one that is being written.
		case !finished && (digits == "" || s.found && digits != s.digits && strings.HasPrefix(s.digits, digits)):
			return at(s.name, line, fmt.Errorf("%w: the line is not complete", ErrAbsent))
		case err != nil:
			return at(s.name, line, err)
		case s.found && v != s.version:
			return at(s.name, 0, fmt.Errorf("%w: %d in line %d, %d in line %d", ErrConflict, s.version, s.line, v, line))
		case !s.found:
			s.found, s.version, s.digits, s.line = true, v, digits, line
		}
	}
	s.lines += bytes.Count(text, []byte("\n"))
	return nil
}

// opensComment says whether before ends with the beginning of a line that is nothing but a comment's.
func opensComment(before []byte) bool {
	line := bytes.TrimRight(before, ";# \t")
	return (len(line) == 0 || line[len(line)-1] == '\n') && bytes.ContainsAny(before[len(line):], ";#")
}

// open returns a regular file, or an error that names the path.
func open(ctx context.Context, path string) (*os.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := file.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, at(path, 0, fmt.Errorf("%w: no such file", ErrAbsent))
	}
	// The path is the fault, not the system: [Wait] does not wait for another answer.
	if irregular, ok := errors.AsType[*file.NotRegularError](err); ok {
		return nil, at(path, 0, irregular)
	}
	return f, err
}
