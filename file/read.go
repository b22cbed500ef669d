package file

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// NotRegularError says that a path leads to something that is no regular file.
type NotRegularError struct {
	Type fs.FileMode // the type bits, such as [fs.ModeNamedPipe]
}

func (e *NotRegularError) Error() string {
	return "is " + typeName(e.Type) + ", not a regular file"
}

func typeName(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "something else"
}

// TooLargeError says that a file is larger than what is read of its kind.
type TooLargeError struct {
	Limit int64 // bytes
}

func (e *TooLargeError) Error() string {
	if e.Limit < 1<<10 || e.Limit%(1<<10) != 0 {
		return fmt.Sprintf("is larger than %d bytes, the most that is read", e.Limit)
	}
	return fmt.Sprintf("is larger than %d KiB, the most that is read", e.Limit>>10)
}

// Open opens a regular file for reading. It waits for nothing but the file system itself: what is no regular file (also by
// a symbolic link) is a [*NotRegularError] at once, so that neither a named pipe without a writer nor a terminal can keep us. It is not
// inherited by a program that is started.
//
// That there is no such file (errors.Is(err, fs.ErrNotExist)) it says only when the links that lead to it stood still meanwhile: the
// kubelet removes the old directory of a volume right after it has moved the link ..data, and whoever had followed ..data just then finds
// nothing.
//
// Every error is an [*fs.PathError] with the path as it was given.
func Open(path string) (*os.File, error) {
	var before []Hop
	for attempt := 1; ; attempt++ {
		f, err := openOnce(path)
		if attempt == maxOpens || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESTALE) {
			return f, err
		}
		now := Walk("", path)
		if before != nil && slices.Equal(before, now) {
			return nil, err
		}
		before = now
	}
}

// maxOpens bounds what a writer that never rests can cost.
const maxOpens = 200

func openOnce(path string) (*os.File, error) {
	fail := func(err error) (*os.File, error) { return nil, &fs.PathError{Op: "open", Path: path, Err: err} }
	// Looked at first, because opening can do something to a device. What is there by the time of the open is looked at again.
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = &NotRegularError{Type: info.Mode().Type()}
	}
	if err != nil {
		return fail(withoutPath(err))
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return fail(withoutPath(err))
	}
	if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
		err = &NotRegularError{Type: info.Mode().Type()}
	}
	if err != nil {
		_ = f.Close()
		return fail(withoutPath(err))
	}
	return f, nil
}

// Read reads a whole regular file of at most limit bytes. It opens the file as [Open] does, with the same errors; a longer file is a
// [*TooLargeError] in an [*fs.PathError], and nothing is returned of it.
func Read(path string, limit int64) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = &TooLargeError{Limit: limit}
	}
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: withoutPath(err)}
	}
	return text, nil
}

// withoutPath is what is inside of an error that repeats the path.
func withoutPath(err error) error {
	if named, ok := errors.AsType[*fs.PathError](err); ok {
		return named.Err
	}
	return err
}
