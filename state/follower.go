package state

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	positionFile    = "serve.json"
	journalInterval = time.Second
	journalQuick    = 100 * time.Millisecond // while an operation runs
	maxJournalRead  = 4 << 20
)

// Follower reads the journal that the short-lived hooks write, each entry once: over the rotation of the file, and over a restart of serve,
// which goes on where the one before had been. The first serve of a state directory begins with what is written from then on.
type Follower struct {
	dir   string
	log   *slog.Logger
	count func(Entry)

	mu       sync.Mutex
	at       position
	done     position // the file before, which was read to its end
	watchers map[int]func(Entry)
	next     int
}

// position is how far it has been read: a file, by its inode and its first bytes (inodes are used again), and the offset of its first
// unread line.
type position struct {
	Inode  uint64 `json:"inode"`
	Head   string `json:"head"`
	Offset int64  `json:"offset"`
}

const headLength = 64 // bytes; an entry begins with its time in nanoseconds

func positionOf(file *os.File, offset int64) (position, error) {
	info, err := file.Stat()
	if err != nil {
		return position{}, err
	}
	head := make([]byte, headLength)
	n, err := file.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return position{}, err
	}
	return position{Inode: inode(info), Head: string(head[:n]), Offset: offset}, nil
}

// is reports whether a file is the one of a position, which may have had fewer bytes then.
func (p position) is(file position) bool {
	return p.Inode == file.Inode && strings.HasPrefix(file.Head, p.Head)
}

// OpenFollower begins where the process before it had been. count is told of each entry, one at a time.
func (d Dir) OpenFollower(count func(Entry)) *Follower {
	f := &Follower{dir: d.Path, log: d.Log, count: count, watchers: map[int]func(Entry){}}
	if Read(filepath.Join(d.Path, positionFile), &f.at) == nil && f.at.Offset >= 0 {
		return f
	}
	f.at = position{}
	if file, err := os.Open(filepath.Join(d.Path, journalName)); err == nil {
		defer file.Close()
		if end, err := file.Seek(0, io.SeekEnd); err == nil {
			f.at, _ = positionOf(file, end) // else from the beginning: too many are better than none
		}
	}
	f.keep()
	return f
}

func inode(info os.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Ino
	}
	return 0
}

func (f *Follower) keep() {
	if err := Write(filepath.Join(f.dir, positionFile), f.at); err != nil {
		f.log.Debug("cannot keep how far the journal was read", "error", err)
	}
}

// Run reads once a second, more often while somebody watches, until the context ends.
func (f *Follower) Run(ctx context.Context) {
	timer := time.NewTimer(journalInterval)
	defer timer.Stop()
	for {
		f.mu.Lock()
		wait := journalInterval
		if len(f.watchers) > 0 {
			wait = journalQuick
		}
		f.mu.Unlock()
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			f.Poll()
			return
		case <-timer.C:
			f.Poll()
		}
	}
}

// Watch has entries told until the function that it returns is called, which tells of the last ones.
func (f *Follower) Watch(tell func(Entry)) (stop func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := f.next
	f.next++
	f.watchers[id] = tell
	return func() {
		f.Poll()
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, id)
	}
}

// Poll reads what is new.
func (f *Follower) Poll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.at
	f.read()
	if f.at != before {
		f.keep()
	}
}

func (f *Follower) read() {
	path := filepath.Join(f.dir, journalName)
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		f.rotated(path + ".1")
		return
	}
	if err != nil {
		return
	}
	defer file.Close()
	now, err := positionOf(file, 0)
	if err != nil {
		return
	}
	if f.at.is(now) {
		now.Offset = f.at.Offset
	} else {
		f.rotated(path + ".1")
		f.done = f.at
	}
	f.at = now
	f.readFrom(file)
}

// rotated reads the rest of the file that we were at, where it is now; or all of another one that has come and gone since.
func (f *Follower) rotated(path string) {
	if f.at.Inode == 0 {
		return // nothing has been read ever, and what is old stays so
	}
	file, err := os.Open(path)
	if err != nil {
		return
	}
	defer file.Close()
	now, err := positionOf(file, 0)
	if err != nil {
		return
	}
	switch {
	case f.at.is(now):
		now.Offset = f.at.Offset
	case f.done.Inode != 0 && f.done.is(now):
		return // somebody has cut the file that we were at
	default:
		f.log.Warn("the journal was rotated faster than it was read: some entries are not counted")
	}
	f.at = now
	f.readFrom(file)
}

func (f *Follower) readFrom(file *os.File) {
	if _, err := file.Seek(f.at.Offset, io.SeekStart); err != nil {
		return
	}
	f.at.Offset += eachEntry(io.LimitReader(file, maxJournalRead), func(e Entry) {
		f.count(e)
		for _, tell := range f.watchers {
			tell(e)
		}
	})
}
