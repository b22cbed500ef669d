package configversion

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
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
	file, err := open(ctx, f.Path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return 0, err
	}
	if len(text) > maxFile {
		return 0, fmt.Errorf("%s: longer than %d bytes: not a file with a configuration version", f.Path, maxFile)
	}
	text = bytes.Trim(bytes.TrimPrefix(text, bom), asciiSpace)
	if len(text) == 0 {
		return 0, fmt.Errorf("%s: %w: the file is empty", f.Path, ErrAbsent)
	}
	v, err := Parse(string(text))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", f.Path, err)
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

// Read reads the file, at most 16 MiB. It does not wait for anything but the file system, and looks at ctx only before it starts. Where two
// lines differ the error is [ErrConflict].
func (l Line) Read(ctx context.Context) (Version, error) {
	file, err := open(ctx, l.Path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	v, err := scan(io.LimitReader(file, maxLine+1))
	if err != nil {
		if _, named := errors.AsType[*fs.PathError](err); named {
			return 0, err
		}
		return 0, fmt.Errorf("%s%w", l.Path, err)
	}
	return v, nil
}

// scan's errors begin with what follows the file's name: ":17: ", or ": ".
func scan(r io.Reader) (Version, error) {
	lines := bufio.NewReaderSize(r, 64<<10)
	var (
		found   bool
		version Version
		first   string // its digits
		at      int    // its line
		size    int
	)
	for n := 1; ; n++ {
		line, err := lines.ReadSlice('\n')
		size += len(line)
		// The rest of a line that is longer than the buffer is no line of its own. What was read of it stays valid only until the next read.
		if errors.Is(err, bufio.ErrBufferFull) {
			line = slices.Clone(line[:maxFile])
			for errors.Is(err, bufio.ErrBufferFull) {
				var rest []byte
				rest, err = lines.ReadSlice('\n')
				size += len(rest)
			}
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if size > maxLine {
			return 0, fmt.Errorf(": longer than %d MiB: not looked through for %s", maxLine>>20, key)
		}
		if n == 1 {
			line = bytes.TrimPrefix(line, bom)
		}
		if text, ok := lineValue(line); ok {
			// A line without an end may be one that is being written.
			unfinished := errors.Is(err, io.EOF) && !bytes.HasSuffix(line, []byte("\n"))
			switch v, bad := Parse(text); {
			case unfinished && text == "", unfinished && found && text != first && len(text) < len(first) && first[:len(text)] == text:
				return 0, fmt.Errorf(":%d: %w: the line is not complete", n, ErrAbsent)
			case bad != nil:
				return 0, fmt.Errorf(":%d: %w", n, bad)
			case found && v != version:
				return 0, fmt.Errorf(": %w: %d in line %d, %d in line %d", ErrConflict, version, at, v, n)
			case !found:
				found, version, first, at = true, v, text, n
			}
		}
		if err != nil {
			break
		}
	}
	if !found {
		return 0, fmt.Errorf(": %w: no line \"# %s: NUMBER\"", ErrAbsent, key)
	}
	return version, nil
}

// lineValue returns what follows the colon of a config-version line.
func lineValue(line []byte) (string, bool) {
	line = bytes.TrimLeft(line, " \t")
	if len(line) == 0 || line[0] != ';' && line[0] != '#' {
		return "", false
	}
	line = bytes.TrimLeft(line, ";# \t")
	if len(line) < len(key) || !bytes.EqualFold(line[:len(key)], []byte(key)) {
		return "", false
	}
	value, ok := bytes.CutPrefix(bytes.TrimLeft(line[len(key):], " \t"), []byte(":"))
	return string(bytes.Trim(value, asciiSpace)), ok
}

// open returns a regular file, or an error that names the path.
func open(ctx context.Context, path string) (*os.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// Without waiting: a FIFO without a writer would keep us for ever.
	file, err := openSettled(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w: no such file", path, ErrAbsent)
		}
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file (%s)", path, info.Mode().Type())
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// maxOpens bounds what a writer that never rests can cost.
const maxOpens = 200

// openSettled says that there is no such file only when the links that lead to it stood still meanwhile: the kubelet removes the old
// directory right after it has moved ..data, and whoever had followed ..data just then finds nothing.
func openSettled(path string) (file *os.File, err error) {
	var before []hop
	for range maxOpens {
		file, err = os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESTALE) {
			return file, err
		}
		now := walk(path)
		if before != nil && slices.Equal(before, now) {
			return nil, err
		}
		before = now
	}
	return nil, err
}
