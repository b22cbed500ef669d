package state

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/file"
)

// Entry is one line of the journal: what a hook of this member did, for status, for the time line of a
// handover, and for metrics.
type Entry struct {
	Time     time.Time     `json:"time"`
	Hook     string        `json:"hook"`               // before_stop, on_role_change, keeper, pause, resume, reload
	Event    string        `json:"event"`              // see the Event constants
	Handover string        `json:"handover,omitempty"` // the same for all entries of one guard or worker
	Member   string        `json:"member"`
	Pooler   string        `json:"pooler,omitempty"`
	Target   string        `json:"target,omitempty"`  // of a reload: postgres, pgbouncer
	Version  string        `json:"version,omitempty"` // of the configuration, of a reload
	Took     time.Duration `json:"took,omitempty"`    // nanoseconds
	Code     int           `json:"code,omitempty"`
	Text     string        `json:"text,omitempty"`
}

// Events, in the order in which a handover has them.
const (
	EventStarted      = "started"
	EventPauseSent    = "pause_sent"
	EventDrained      = "drained"
	EventAllDrained   = "all_drained" // a pause by hand has succeeded: on every pooler
	EventNotDrained   = "not_drained"
	EventUndone       = "undone" // an attempt was taken back
	EventServerDown   = "server_down"
	EventReleased     = "released" // the guard has ended: Patroni goes on
	EventWritable     = "writable"
	EventRoute        = "route"
	EventResumed      = "resumed"
	EventReconnected  = "reconnected"
	EventPutBack      = "put_back"   // settings are as before
	EventPauseOver    = "pause_over" // the keeper has seen that its pause was ended, by whomever; it looks twice a second
	EventLeaseExpired = "lease_expired"
	EventTakenUp      = "taken_up" // the keeper was killed, and another has its lease
	EventEnded        = "ended"
)

// Events of a reload, one for the server and one for each pooler.
const (
	EventReloaded    = "reloaded"
	EventNotReloaded = "not_reloaded"
	EventNotBegun    = "not_begun"    // the version did not come: what was applied is what it was
	EventAllReloaded = "all_reloaded" // the end of a run: every pooler, or the server, is verified
)

const (
	journalName = "journal.jsonl"
	journalMax  = 1 << 20 // bytes; the file before is kept beside it

	// Bytes of a line that is read, and of what others say in one that is written: whatever JSON makes of it is read back.
	maxJournalLine = 64 << 10
	maxEntryText   = 2000
	maxEntryName   = 300
)

// Journal appends entries. Writing is best effort: a handover does not fail because a disk is full.
type Journal struct {
	path     string
	hook     string
	Handover string
	member   string
}

// Journal opens the journal for the entries of one hook; handover is the same for all entries of one guard or worker. Without a state
// directory the entries go nowhere.
func (d Dir) Journal(member, hook, handover string) *Journal {
	j := &Journal{hook: hook, Handover: handover, member: member}
	if d.Path != "" {
		j.path = filepath.Join(d.Path, journalName)
	}
	return j
}

func (j *Journal) Add(e Entry) {
	if j.path == "" {
		return
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Hook, e.Handover, e.Member = j.hook, j.Handover, j.member
	e.Text, e.Pooler, e.Target, e.Version = Clip(e.Text, maxEntryText), Clip(e.Pooler, maxEntryName), Clip(e.Target, maxEntryName),
		Clip(e.Version, maxEntryName)
	line, err := json.Marshal(e)
	if err != nil {
		return
	}
	rotate(j.path)
	f, err := os.OpenFile(j.path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return
	}
	defer unlock(f)
	line = append(line, '\n')
	// Not waited for: whoever holds it may be frozen, and a handover does not wait for a journal.
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && torn(f) {
		line = append([]byte{'\n'}, line...)
	}
	// One write for one line: two processes that append at the same time do not mix.
	_, _ = f.Write(line)
}

// rotate puts a full file beside. Several that write at the same time may all find it full; under the lock, only the first finds that the
// full one still has its name.
func rotate(path string) {
	if info, err := os.Stat(path); err != nil || info.Size() <= journalMax {
		return
	}
	full, err := os.Open(path)
	if err != nil {
		return
	}
	defer unlock(full)
	// Not waited for, as below: the next entry does it.
	if unix.Flock(int(full.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	ours, err := full.Stat()
	named, gone := os.Stat(path)
	if err == nil && gone == nil && os.SameFile(ours, named) && ours.Size() > journalMax {
		_ = os.Rename(path, path+".1")
	}
}

// torn reports whether the last line has no end: who wrote it was killed at it.
func torn(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return false
	}
	last := make([]byte, 1)
	_, err = f.ReadAt(last, info.Size()-1)
	return err == nil && last[0] != '\n'
}

// Sync makes what was written last. It is called where nobody waits for the hook any more.
func (j *Journal) Sync() {
	if j.path == "" {
		return
	}
	if f, err := os.OpenFile(j.path, os.O_WRONLY, 0o600); err == nil {
		_ = f.Sync()
		_ = f.Close()
	}
}

// ReadJournal returns the last entries, oldest first. A line that cannot be read is left out: the process that wrote it
// may have been killed at it. No journal is no error.
func ReadJournal(stateDir string, last int) ([]Entry, error) {
	var entries []Entry
	for _, name := range []string{journalName + ".1", journalName} {
		some, err := readJournalFile(filepath.Join(stateDir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		entries = append(entries, some...)
	}
	if len(entries) > last {
		entries = entries[len(entries)-last:]
	}
	return entries, nil
}

func readJournalFile(path string) ([]Entry, error) {
	f, err := file.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var entries []Entry
	eachEntry(io.LimitReader(f, 2*journalMax), func(e Entry) { entries = append(entries, e) })
	return entries, nil
}

// eachEntry calls do for every line that is an entry, and returns how many bytes the lines have that are whole. What is no entry, or too
// long for one, is left out.
func eachEntry(r io.Reader, do func(Entry)) (read int64) {
	lines := bufio.NewReaderSize(r, maxJournalLine)
	skip := false
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			read += int64(len(line))
			skip = true
			continue
		}
		if err != nil {
			return read // the end, or a line that is just being written
		}
		read += int64(len(line))
		var e Entry
		if !skip && json.Unmarshal(line, &e) == nil {
			do(e)
		}
		skip = false
	}
}

// NewID is for a handover, or for what else the journal tells of.
func NewID() string {
	b := make([]byte, 6)
	_, _ = rand.Read(b) // never fails (crypto/rand, Go 1.24)
	return hex.EncodeToString(b)
}
