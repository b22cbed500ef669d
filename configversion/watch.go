package configversion

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/pgbaton/pgbaton/file"
)

const (
	// poll is what a lost event costs.
	poll = time.Second
	// rest is the least time from one read to the next that events ask for: a writer that never stops costs 50 reads a second. The first
	// event after a quiet time does not wait.
	rest = 20 * time.Millisecond
	// grace is how long the system may refuse a file before that is final: kubelets whose AtomicWriter.Write takes no setPerms set a
	// volume's owner only after they have swapped it (source).
	grace = 2 * time.Second
	// settle is how often the watches follow links that move on meanwhile; the next event is then already there.
	settle = 3
)

// PollingError is a notice, no fault: changes of the files are seen within a second instead of at once.
type PollingError struct {
	Err error // why: often ENOSPC or EMFILE, the limits fs.inotify.max_user_watches and max_user_instances
}

func (e *PollingError) Error() string {
	return fmt.Sprintf("no file events, looking once a second instead: %v", e.Err)
}

func (e *PollingError) Unwrap() error { return e.Err }

// TimeoutError says that a version did not arrive in time.
type TimeoutError struct {
	Source string
	Want   Version
	Last   Version // the version that was seen last
	Seen   bool    // whether one was
	Err    error   // of the last read; nil when that saw Last
	Cause  error   // why the context ended
}

func (e *TimeoutError) Error() string {
	s := fmt.Sprintf("configuration version %d did not arrive in time", e.Want)
	switch {
	case e.Seen && e.Err != nil:
		s += fmt.Sprintf(": %s had %d, then: %v", e.Source, e.Last, e.Err)
	case e.Seen:
		s += fmt.Sprintf(": %s has %d", e.Source, e.Last)
	case e.Err != nil:
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause and the error of the last read.
func (e *TimeoutError) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.Cause, e.Err} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// changes passes on what differs from the call before.
func changes(seen func(Version, error)) func(Version, error) {
	var (
		any     bool
		version Version
		text    string
	)
	return func(v Version, err error) {
		if _, notice := errors.AsType[*PollingError](err); notice {
			seen(0, err)
			return
		}
		var now string
		if err != nil {
			v, now = 0, err.Error()
		}
		if any && v == version && now == text {
			return
		}
		any, version, text = true, v, now
		seen(v, err)
	}
}

// Wait blocks until src says want or a later version, and returns that. When ctx ends first it returns a *[TimeoutError] with the version
// that was seen last. [ErrAbsent] and a version that is too small, be it smaller than before, are waited out. Any other error is final: at
// once when it is about the content, after 2 s when the system refuses the file ([fs.PathError]).
//
// progress, which may be nil, is called from the same goroutine for every change of what src says, a version or an error. A version that
// was there for less than 20 ms may be passed over. While progress has not returned nothing is read. A *[PollingError] comes at most once,
// with the version zero.
func Wait(ctx context.Context, src Source, want Version, progress func(Version, error)) (Version, error) {
	return wait(ctx, src, want, progress, fsnotify.NewWatcher)
}

func wait(ctx context.Context, src Source, want Version, progress func(Version, error), events newWatcher) (Version, error) {
	if progress == nil {
		progress = func(Version, error) {}
	}
	progress = changes(progress)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	var (
		arrived bool
		final   error
		refused time.Time // since when
		late    = &TimeoutError{Source: src.String(), Want: want}
	)
	watch(watching, src, events, func(v Version, err error) {
		progress(v, err)
		if _, notice := errors.AsType[*PollingError](err); notice {
			return
		}
		late.Err = err
		_, system := errors.AsType[*fs.PathError](err)
		switch {
		case err == nil:
			late.Last, late.Seen = v, true
			arrived = v >= want
		case errors.Is(err, ErrAbsent):
		case system && refused.IsZero():
			refused = time.Now()
		case system && time.Since(refused) < grace:
		default:
			final = err
		}
		if !system {
			refused = time.Time{}
		}
		if arrived || final != nil {
			stop()
		}
	})
	switch {
	case arrived:
		return late.Last, nil
	case final != nil:
		return 0, final
	}
	late.Cause = context.Cause(ctx)
	return 0, late
}

// newWatcher is fsnotify.NewWatcher, or in tests what fails as it may; nil: poll only, and say nothing.
type newWatcher func() (*fsnotify.Watcher, error)

// watch calls read with the result of every read, until ctx ends.
func watch(ctx context.Context, src Source, events newWatcher, read func(Version, error)) {
	var paths []string
	if p, ok := src.(Paths); ok && events != nil {
		paths = p.Paths()
	}
	w := watches{events: events, paths: paths}
	defer w.close()
	// Reused: one timer for "in a second" and for "when the rest is over".
	timer := time.NewTimer(0)
	defer timer.Stop()
	noticed := false
	for ctx.Err() == nil {
		// The watches stand before the read: what changes after it is an event.
		again, err := w.follow()
		if err != nil && !noticed {
			noticed = true
			read(0, &PollingError{Err: err})
		}
		v, err := src.Read(ctx)
		if err != nil && ctx.Err() != nil {
			return // what the end of ctx did to the read says nothing about the source
		}
		read(v, err)
		done := time.Now()
		timer.Reset(poll)
		if again {
			timer.Reset(rest)
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
				waiting = false
			case event, ok := <-w.eventsC():
				if !ok {
					w.close()
				} else if w.matters(event.Name) {
					timer.Reset(max(0, rest-time.Since(done)))
				}
			case _, ok := <-w.errorsC():
				if !ok {
					w.close()
				} else { // an overflow: events were lost
					timer.Reset(max(0, rest-time.Since(done)))
				}
			}
		}
	}
}

// watches are inotify's on the directories of every hop of some paths.
type watches struct {
	events  newWatcher
	paths   []string
	watcher *fsnotify.Watcher
	dirs    map[string]fileID
	names   map[string]bool // whose events matter
}

// fileID tells a directory from another that was made, or mounted, in its place.
type fileID struct{ dev, ino uint64 }

func (w *watches) eventsC() <-chan fsnotify.Event {
	if w.watcher == nil {
		return nil
	}
	return w.watcher.Events
}

func (w *watches) errorsC() <-chan error {
	if w.watcher == nil {
		return nil
	}
	return w.watcher.Errors
}

func (w *watches) matters(name string) bool { return w.names[name] }

func (w *watches) close() {
	if w.watcher != nil {
		_ = w.watcher.Close()
		w.watcher, w.dirs = nil, nil
	}
}

// follow sets the watches to where the paths lead now. again: they still led elsewhere at the end. The error is why some watch could not be
// set.
func (w *watches) follow() (again bool, err error) {
	if len(w.paths) == 0 {
		return false, nil
	}
	if w.watcher == nil {
		if w.watcher, err = w.events(); err != nil {
			w.watcher = nil
			return false, err
		}
		w.dirs = map[string]fileID{}
	}
	for range settle {
		var changed bool
		if changed, err = w.set(); !changed {
			return false, err
		}
	}
	return true, err
}

func (w *watches) set() (changed bool, err error) {
	want := map[string]bool{}
	w.names = map[string]bool{}
	for _, path := range w.paths {
		for _, h := range file.Walk("", path) {
			want[h.Dir] = true
			w.names[h.Path()], w.names[h.Dir] = true, true
		}
	}
	have := w.watcher.WatchList()
	for dir := range w.dirs {
		if !want[dir] {
			_ = w.watcher.Remove(dir) // it may be gone, and its watch with it
			delete(w.dirs, dir)
		}
	}
	for dir := range want {
		id, statErr := identify(dir)
		if known, ok := w.dirs[dir]; ok && statErr == nil && known == id && slices.Contains(have, dir) {
			continue
		}
		_ = w.watcher.Remove(dir)
		delete(w.dirs, dir)
		if statErr == nil {
			statErr = w.watcher.Add(dir)
		}
		switch {
		case statErr == nil:
			w.dirs[dir] = id
			changed = true
		case errors.Is(statErr, fs.ErrNotExist), errors.Is(statErr, syscall.ENOTDIR):
			changed = true // gone meanwhile: the way there is another by now
		default:
			err = fmt.Errorf("%s: %w", dir, statErr)
		}
	}
	return changed, err
}

func identify(dir string) (fileID, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return fileID{}, err
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		return fileID{uint64(sys.Dev), uint64(sys.Ino)}, nil
	}
	return fileID{}, nil
}
