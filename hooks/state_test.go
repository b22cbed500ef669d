package hooks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func newStateDir(t *testing.T) stateDir {
	return stateDir{path: t.TempDir(), log: slog.New(slog.DiscardHandler)}
}

func TestJournalLinesStayWhole(t *testing.T) {
	d := newStateDir(t)
	const writers, each = 8, 100
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			j := d.journal("node1", "before_stop", fmt.Sprint(w))
			for range each {
				j.add(Entry{Event: EventDrained, Pooler: "127.0.0.1:6432", Text: strings.Repeat("x", 100*w)})
			}
			j.sync()
		})
	}
	all.Wait()
	content, err := os.ReadFile(filepath.Join(d.path, journalName))
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
	entries, err := ReadJournal(d.path, 10_000)
	if err != nil || len(entries) != writers*each {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for _, e := range entries {
		if e.Time.IsZero() || e.Member == "" || e.Hook != "before_stop" || e.Handover == "" {
			t.Fatalf("incomplete: %+v", e)
		}
	}
	last, err := ReadJournal(d.path, 3)
	if err != nil || len(last) != 3 || last[2] != entries[len(entries)-1] {
		t.Errorf("the last three: %+v, %v", last, err)
	}
}

func TestJournalCutLine(t *testing.T) {
	d := newStateDir(t)
	path := filepath.Join(d.path, journalName)
	j := d.journal("node1", "pause", "a")
	j.add(Entry{Event: EventStarted})
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// A process that was killed in the middle of a line.
	if err := os.WriteFile(path, append(whole, whole[:len(whole)/2]...), 0o600); err != nil {
		t.Fatal(err)
	}
	entries, err := ReadJournal(d.path, 10)
	if err != nil || len(entries) != 1 {
		t.Errorf("%+v, %v", entries, err)
	}
	// One more may be lost with it, but not the next.
	j.add(Entry{Event: EventDrained})
	j.add(Entry{Event: EventReleased})
	entries, err = ReadJournal(d.path, 10)
	if err != nil || len(entries) < 2 || entries[len(entries)-1].Event != EventReleased {
		t.Errorf("%+v, %v", entries, err)
	}
}

func TestJournalRotates(t *testing.T) {
	d := newStateDir(t)
	path := filepath.Join(d.path, journalName)
	if err := os.WriteFile(path, bytes.Repeat([]byte("{}\n"), journalMax/3+1), 0o600); err != nil {
		t.Fatal(err)
	}
	j := d.journal("node1", "pause", "a")
	j.add(Entry{Event: EventStarted})
	old, err := os.Stat(path + ".1")
	if err != nil || old.Size() <= journalMax {
		t.Errorf("the old one: %v, %v", old, err)
	}
	entries, err := ReadJournal(d.path, 10)
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
	d.path = filepath.Join(d.path, "nosuch")
	d.journal("node1", "pause", "a").add(Entry{})
	d.journal("node1", "pause", "a").sync()
	d.path = ""
	d.journal("node1", "pause", "a").add(Entry{})
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
	if err := WriteState(path, order); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	for w := range 2 {
		all.Go(func() {
			for i := range 50 {
				mine := order
				mine.ID = fmt.Sprint(w, i)
				if err := WriteState(path, mine); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			var got value
			if err := readState(path, &got); err != nil || !got.Until.Equal(until) || len(got.Long) != 8000 {
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
	if err := WriteState(filepath.Join(dir, "no", "such"), order); err == nil {
		t.Error("no error without a directory")
	}
	if err := os.WriteFile(path, []byte(`{"id":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := readState(path, &order); err == nil {
		t.Error("half a file is read")
	}
}

func TestLock(t *testing.T) {
	d := newStateDir(t)
	first, err := d.tryLock("guard.lock")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.tryLock("guard.lock"); !errors.Is(err, errBusy) {
		t.Errorf("taken twice: %v", err)
	}
	if pid, ok := d.lockOwner("guard.lock"); !ok || pid != os.Getpid() {
		t.Errorf("owner %d, %v", pid, ok)
	}
	other, err := d.tryLock("worker.lock")
	if err != nil {
		t.Errorf("another lock: %v", err)
	}
	other.release()
	first.release()
	again, err := d.tryLock("guard.lock")
	if err != nil {
		t.Errorf("after release: %v", err)
	}
	again.release()
	(*lock)(nil).release()

	// Without a place for locks nobody is held up.
	for _, dir := range []string{"", filepath.Join(d.path, "nosuch")} {
		d.path = dir
		for range 2 {
			if l, err := d.tryLock("guard.lock"); err != nil {
				t.Errorf("state directory %q: %v", dir, err)
			} else {
				l.release()
			}
		}
	}
	if _, ok := d.lockOwner("nosuch"); ok {
		t.Error("an owner of nothing")
	}
}

// A lock file names a process; it is signalled only if it is a worker.
