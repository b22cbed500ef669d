package maintenance

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/plan"
	"github.com/pgbaton/pgbaton/state"
)

// record is a run as it stands in the state directory: run-ID.json. It is on the disk before each step begins, and the file is locked for
// as long as the process of the run lives.
type record struct {
	ID      string           `json:"id"`
	Member  string           `json:"member"`
	Scope   string           `json:"scope"`
	Request Request          `json:"request"`
	State   plan.State       `json:"state"`
	Began   time.Time        `json:"began"`
	Steps   []api.StepReport `json:"steps"`          // that were begun
	Done    []plan.Done      `json:"done,omitempty"` // those of them of which it is known what has become of them
	At      *attempt         `json:"at,omitempty"`
	Before  before           `json:"before,omitzero"`
	Over    bool             `json:"over,omitempty"`
	Ended   time.Time        `json:"ended,omitzero"`
	// Report is how it ended.
	Report *api.ClusterReport `json:"report,omitempty"`
}

// attempt is the step that is at work: what was seen before it, so that it can be told afterwards whether it was done.
type attempt struct {
	plan.Step
	Number   int       `json:"number"`
	Leader   string    `json:"leader"`           // before
	Timeline int       `json:"timeline"`         // of the leader
	Started  time.Time `json:"started,omitzero"` // when the member's server was started
}

// maxRecords are kept.
const maxRecords = 20

var recordName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^run-([0-9a-f]{12})\.json$`) })

func recordPath(m *member.Member, id string) string {
	return filepath.Join(m.Config.StateDir, "run-"+id+".json")
}

// save writes the record, on the disk when it returns. Without a state directory there is none: nothing can be resumed then.
func (x *run) save() error {
	if x.m.Config.StateDir == "" {
		return nil
	}
	lock, err := state.WriteLocked(recordPath(x.m, x.record.ID), x.record)
	if err != nil {
		return fmt.Errorf("the run's journal cannot be written: %w", err)
	}
	x.held.Release()
	x.held = lock
	return nil
}

// forget removes the record of a run that has not begun.
func (x *run) forget() {
	if x.held != nil {
		_ = os.Remove(recordPath(x.m, x.record.ID))
	}
}

// records are the names of the runs in the state directory, the newest first.
func records(m *member.Member) []string {
	if m.Config.StateDir == "" {
		return nil
	}
	entries, err := os.ReadDir(m.Config.StateDir)
	if err != nil {
		return nil
	}
	type found struct {
		id string
		at time.Time
	}
	var all []found
	for _, e := range entries {
		match := recordName().FindStringSubmatch(e.Name())
		if info, err := e.Info(); match != nil && err == nil && info.Mode().IsRegular() {
			all = append(all, found{match[1], info.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b found) int { return b.at.Compare(a.at) })
	ids := make([]string, 0, len(all))
	for _, f := range all {
		ids = append(ids, f.id)
	}
	return ids
}

// sweepRecords removes the oldest records of runs that are over.
func sweepRecords(m *member.Member) {
	for i, id := range records(m) {
		var r record
		path := recordPath(m, id)
		if i >= maxRecords && !state.Locked(path) && state.Read(path, &r) == nil && r.Over {
			_ = os.Remove(path)
		}
	}
}

// Resumable is the newest run of this member, where it was cut off, stopped, or has failed; "" where there is none, or it is done.
func Resumable(m *member.Member) (id string) {
	for _, id := range records(m) {
		var r record
		path := recordPath(m, id)
		if state.Read(path, &r) != nil {
			continue
		}
		if r.State.Resumable() && !state.Locked(path) {
			return id
		}
		return ""
	}
	return ""
}

// Dead reports whether a run of this member was cut off: its process has ended, and it has not.
func Dead(m *member.Member, id string) bool {
	var r record
	path := recordPath(m, id)
	return m.Config.StateDir != "" && state.Read(path, &r) == nil && !state.Locked(path)
}

// Recorded reads how a run of this member stands: its steps, and its report where it has ended. running says that its process lives.
func Recorded(m *member.Member, id string) (report api.ClusterReport, over, running bool, err error) {
	if !recordName().MatchString("run-" + id + ".json") {
		return report, false, false, fmt.Errorf("%q is no run", id)
	}
	var r record
	path := recordPath(m, id)
	if err := state.Read(path, &r); err != nil {
		return report, false, false, err
	}
	if r.Report != nil {
		return *r.Report, r.Over, false, nil
	}
	report = api.ClusterReport{Run: r.ID, Kind: r.Request.Kind, Member: r.Member, Scope: r.Scope, State: api.StepUnknown, Steps: r.Steps,
		Began: r.Began}
	return report, r.Over, state.Locked(path), nil
}
