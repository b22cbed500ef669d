package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newStateDir(t *testing.T) Dir {
	return Dir{Path: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
}

func TestJournalLinesStayWhole(t *testing.T) {
	d := newStateDir(t)
	const writers, each = 8, 100
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			j := d.Journal("node1", "before_stop", fmt.Sprint(w))
			for range each {
				j.Add(Entry{Event: EventDrained, Pooler: "127.0.0.1:6432", Text: strings.Repeat("x", 100*w)})
			}
			j.Sync()
		})
	}
	all.Wait()
	content, err := os.ReadFile(filepath.Join(d.Path, journalName))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(content) {
		// One that is half written when another looks whether the last line has its end is closed once too often: readers pass over it.
		if len(line) == 1 {
			continue
		}
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
	}
	entries, err := ReadJournal(d.Path, 10_000)
	if err != nil || len(entries) != writers*each {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for _, e := range entries {
		if e.Time.IsZero() || e.Member == "" || e.Hook != "before_stop" || e.Handover == "" {
			t.Fatalf("incomplete: %+v", e)
		}
	}
	last, err := ReadJournal(d.Path, 3)
	if err != nil || len(last) != 3 || last[2] != entries[len(entries)-1] {
		t.Errorf("the last three: %+v, %v", last, err)
	}
}

func TestJournalCutLine(t *testing.T) {
	d := newStateDir(t)
	path := filepath.Join(d.Path, journalName)
	j := d.Journal("node1", "pause", "a")
	j.Add(Entry{Event: EventStarted})
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// A process that was killed in the middle of a line.
	if err := os.WriteFile(path, append(whole, whole[:len(whole)/2]...), 0o600); err != nil {
		t.Fatal(err)
	}
	entries, err := ReadJournal(d.Path, 10)
	if err != nil || len(entries) != 1 {
		t.Errorf("%+v, %v", entries, err)
	}
	// One more may be lost with it, but not the next.
	j.Add(Entry{Event: EventDrained})
	j.Add(Entry{Event: EventReleased})
	entries, err = ReadJournal(d.Path, 10)
	if err != nil || len(entries) < 2 || entries[len(entries)-1].Event != EventReleased {
		t.Errorf("%+v, %v", entries, err)
	}
}

func TestJournalRotates(t *testing.T) {
	d := newStateDir(t)
	path := filepath.Join(d.Path, journalName)
	if err := os.WriteFile(path, bytes.Repeat([]byte("{}\n"), journalMax/3+1), 0o600); err != nil {
		t.Fatal(err)
	}
	j := d.Journal("node1", "pause", "a")
	j.Add(Entry{Event: EventStarted})
	old, err := os.Stat(path + ".1")
	if err != nil || old.Size() <= journalMax {
		t.Errorf("the old one: %v, %v", old, err)
	}
	entries, err := ReadJournal(d.Path, 10)
	if err != nil || len(entries) == 0 || entries[len(entries)-1].Event != EventStarted {
		t.Errorf("%+v, %v", entries, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || info.Size() > 1000 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestJournalIsNoCondition(t *testing.T) {
	if entries, err := ReadJournal(t.TempDir(), 10); err != nil || entries != nil {
		t.Errorf("%v, %v", entries, err)
	}
	d := newStateDir(t)
	d.Path = filepath.Join(d.Path, "nosuch")
	d.Journal("node1", "pause", "a").Add(Entry{})
	d.Journal("node1", "pause", "a").Sync()
	d.Path = ""
	d.Journal("node1", "pause", "a").Add(Entry{})
}

func TestWriteStateIsAtomic(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "lease-guard.json")
	type value struct {
		ID    string
		Until time.Time
		Long  string
	}
	until := time.Unix(1_800_000_000, 0)
	order := value{ID: "0", Until: until, Long: strings.Repeat("d", 8000)}
	if err := Write(path, order); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	for w := range 2 {
		all.Go(func() {
			for i := range 50 {
				mine := order
				mine.ID = fmt.Sprint(w, i)
				if err := Write(path, mine); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			var got value
			if err := Read(path, &got); err != nil || !got.Until.Equal(until) || len(got.Long) != 8000 {
				t.Errorf("half a file: %v", err)
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	all.Wait()
	close(stop)
	reading.Wait()
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Errorf("left over: %v, %v", files, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := Write(filepath.Join(dir, "no", "such"), order); err == nil {
		t.Error("no error without a directory")
	}
	if err := os.WriteFile(path, []byte(`{"id":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Read(path, &order); err == nil {
		t.Error("half a file is read")
	}
}

// TestLockBesideStarts: a lock that was let go is free, also while processes are started: each has a copy of our files until its exec.
func TestLockBesideStarts(t *testing.T) {
	t.Parallel()
	dir := Dir{Path: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	ended := make(chan struct{})
	var starting sync.WaitGroup
	for range 4 {
		starting.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
					_ = exec.Command("true").Run()
				}
			}
		})
	}
	for n := range 1000 {
		l, err := dir.TryLock("lock")
		if err != nil {
			t.Errorf("after %d locks: %v", n, err)
			break
		}
		l.Release()
	}
	close(ended)
	starting.Wait()
}

func TestLock(t *testing.T) {
	d := newStateDir(t)
	first, err := d.TryLock("guard.lock")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.TryLock("guard.lock"); !errors.Is(err, ErrBusy) {
		t.Errorf("taken twice: %v", err)
	}
	if pid, ok := d.LockOwner("guard.lock"); !ok || pid != os.Getpid() {
		t.Errorf("owner %d, %v", pid, ok)
	}
	other, err := d.TryLock("worker.lock")
	if err != nil {
		t.Errorf("another lock: %v", err)
	}
	other.Release()
	first.Release()
	again, err := d.TryLock("guard.lock")
	if err != nil {
		t.Errorf("after release: %v", err)
	}
	again.Release()
	(*Lock)(nil).Release()

	// Without a place for locks nobody is held up.
	for _, dir := range []string{"", filepath.Join(d.Path, "nosuch")} {
		d.Path = dir
		for range 2 {
			if l, err := d.TryLock("guard.lock"); err != nil {
				t.Errorf("state directory %q: %v", dir, err)
			} else {
				l.Release()
			}
		}
	}
	if _, ok := d.LockOwner("nosuch"); ok {
		t.Error("an owner of nothing")
	}
}

// A lock file names a process; it is signalled only if it is a worker.

// What is read back is bounded and is a regular file.
func TestReadIsBounded(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "lease-guard.json")
	if _, err := WriteLocked(path, strings.Repeat("x", maxState)); err == nil {
		t.Error("written, and would not be read back")
	}
	if err := os.WriteFile(path, []byte(`"`+strings.Repeat("x", maxState)+`"`), 0o600); err != nil {
		t.Fatal(err)
	}
	var value string
	if err := Read(path, &value); err == nil {
		t.Error("a file that is too long is read")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, filepath.Join(dir, "guard.lock"), filepath.Join(dir, journalName)} {
		if err := unix.Mkfifo(name, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := Read(path, &value); err == nil {
			t.Error("a named pipe is read")
		}
		if _, ok := (Dir{Path: dir}).LockOwner("guard.lock"); ok {
			t.Error("a named pipe names an owner")
		}
		if _, err := ReadJournal(dir, 10); err == nil {
			t.Error("a named pipe is a journal")
		}
		if Locked(path) {
			t.Error("a named pipe is locked")
		}
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("a named pipe without a writer blocks")
	}
}

// A file says whether who wrote it still lives; of several only one claims it.
func TestClaim(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lease-hand.json")
	var value string
	if _, err := Claim(path, &value); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	first, err := WriteLocked(path, "first")
	if err != nil {
		t.Fatal(err)
	}
	second, err := WriteLocked(path, "second")
	if err != nil {
		t.Fatal(err)
	}
	if first.Names(path) || !second.Names(path) {
		t.Error("the second file has the name")
	}
	first.Release() // the file that it was of has no name any more
	if !Locked(path) {
		t.Error("not locked by its writer")
	}
	if _, err := Claim(path, &value); !errors.Is(err, ErrBusy) {
		t.Errorf("its writer lives: %v", err)
	}
	second.Release() // as the kernel does when the process ends
	if Locked(path) {
		t.Error("locked by nobody")
	}
	claimed, err := Claim(path, &value)
	if err != nil || value != "second" {
		t.Fatalf("%q, %v", value, err)
	}
	if _, err := Claim(path, &value); !errors.Is(err, ErrBusy) {
		t.Errorf("claimed twice: %v", err)
	}
	claimed.Release()
}
