package hooks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/pgb"
)

const (
	// effectTimeout is how long the effect of a reload may take to show: a signal is not answered.
	effectTimeout = 3 * time.Second
	// arrivalPoll is how often a pooler elsewhere is reloaded again while its copy of the file is not there yet.
	arrivalPoll = time.Second
	// handoverPoll is how often a pooler that is held is looked at.
	handoverPoll = 200 * time.Millisecond
)

// PoolerReload is what became of one pooler.
type PoolerReload struct {
	Pooler       string              `json:"pooler"`
	Done         string              `json:"done"`
	How          string              `json:"how,omitempty"`  // "RELOAD", "SIGHUP to process 7"
	File         string              `json:"file,omitempty"` // what the running settings were compared with
	Verified     bool                `json:"verified"`
	NotVerified  string              `json:"notVerified,omitempty"` // why not
	Changed      []SettingDifference `json:"changed,omitempty"`     // by this reload
	NotApplied   []SettingDifference `json:"notApplied,omitempty"`  // the file says otherwise
	NeedsRestart []SettingDifference `json:"needsRestart,omitempty"`
	Error        string              `json:"error,omitempty"`
}

// SettingDifference is a setting with two values.
type SettingDifference struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Key     string `json:"key"`
	Want    string `json:"want"`              // in the file; after the reload
	Running string `json:"running"`           // in the pooler; before the reload
	Problem string `json:"problem,omitempty"` // why PgBouncer cannot take it
}

func (d SettingDifference) String() string {
	at := ""
	if d.File != "" {
		at = fmt.Sprintf("%s:%d: ", d.File, d.Line)
	}
	text := fmt.Sprintf("%s%s is %q in the file and %q in the pooler", at, d.Key, d.Want, d.Running)
	if d.Problem != "" {
		text += " (" + d.Problem + ")"
	}
	return text
}

// pgbouncer reloads every pooler at the same time. The error is all of theirs.
func (r *reload) pgbouncer(ctx context.Context) ([]PoolerReload, error) {
	poolers, _, errs := r.rt.fleet(ctx, nil)
	defer closeAll(poolers)
	var reports []PoolerReload
	for _, err := range errs { // names that cannot be resolved
		reports = append(reports, PoolerReload{Pooler: "?", Done: ReloadNot, Error: err.Error()})
	}
	first := len(reports)
	index := map[*pgb.Pooler]int{}
	for _, p := range poolers {
		index[p] = len(reports)
		reports = append(reports, PoolerReload{Pooler: p.Name, Done: ReloadNot})
	}
	for i, err := range errs {
		errs[i] = &fault{problem: ProblemUnreachable, err: err}
	}
	alone := countLocal(poolers) == 1
	errs = append(errs, pgb.Each(poolers, func(p *pgb.Pooler) error {
		return r.onePooler(ctx, p, alone, &reports[index[p]])
	})...)
	version := r.versions[ReloadPgBouncer]
	if version != nil {
		version.OnDisk = version.Seen
	}
	all := errors.Join(errs...)
	if version != nil && all == nil && !r.rt.DryRun {
		version.Applied = version.Seen
		for _, report := range reports[first:] {
			if !report.Verified {
				version.Applied = nil
			}
		}
	}
	return reports, joined(errs)
}

// joined keeps one line.
func joined(errs []error) error {
	var texts []string
	var firstFault *fault
	for _, err := range errs {
		if err == nil {
			continue
		}
		texts = append(texts, err.Error())
		var f *fault
		if errors.As(err, &f) && firstFault == nil {
			firstFault = f
		}
	}
	if len(texts) == 0 {
		return nil
	}
	out := &fault{err: errors.New(strings.Join(texts, "; "))}
	if firstFault != nil {
		out.problem, out.code = firstFault.problem, firstFault.code
	}
	return out
}

func countLocal(poolers []*pgb.Pooler) int {
	n := 0
	for _, p := range poolers {
		if p.Local() {
			n++
		}
	}
	return n
}

func (r *reload) onePooler(ctx context.Context, p *pgb.Pooler, alone bool, report *PoolerReload) error {
	start := time.Now()
	x := &poolerReload{reload: r, Pooler: p, alone: alone, report: report}
	defer x.close()
	err := x.run(ctx)
	entry := Entry{Event: EventReloaded, Target: ReloadPgBouncer, Pooler: p.Name, Took: time.Since(start), Version: r.versions[ReloadPgBouncer].text()}
	if err != nil {
		report.Error = err.Error()
		entry.Event, entry.Code, entry.Text = EventNotReloaded, Failed, err.Error()
		var f *fault
		if errors.As(err, &f) {
			err = &fault{problem: f.problem, code: f.code, err: fmt.Errorf("pooler %s: %w", p.Name, f.err)}
		}
	} else if !r.rt.DryRun {
		words := report.Done + " by " + report.How
		if report.NotVerified != "" {
			words += ", not verified: " + report.NotVerified
		}
		r.say(ReloadPgBouncer, p.Name, "%s", words)
		entry.Text = words
	}
	r.journal.add(entry)
	return err
}

// poolerReload is the reload of one pooler.
type poolerReload struct {
	*reload
	*pgb.Pooler
	alone   bool // no other configured pooler can be on this host
	report  *PoolerReload
	peer    *pgb.Pooler // the process's own socket, where our password is refused
	process *pgb.Process
	refused error  // of the console; nil: it answers
	root    string // in front of the paths in its file, when its process is known
	before  []pgb.Setting
}

func (x *poolerReload) close() {
	if x.peer != nil {
		x.peer.Close()
	}
	if x.process != nil {
		x.process.Close()
	}
}

func (x *poolerReload) run(ctx context.Context) error {
	waiting, cancel := context.WithDeadline(ctx, x.deadline)
	defer cancel()
	if err := x.look(ctx, waiting); err != nil {
		return err
	}
	file, err := x.readFile()
	if err == nil {
		err = x.check(ctx, file)
	}
	if err != nil {
		return &fault{problem: ProblemInvalidFile, err: fmt.Errorf("not reloaded: %w", err)}
	}
	if x.rt.DryRun {
		return x.wouldReload(ctx, file)
	}
	x.report.Done = ReloadFailed
	for {
		err := x.reloadNow(ctx)
		if errors.Is(err, errHeld) {
			x.report.Done = ReloadNot
			if err := x.look(ctx, waiting); err != nil {
				return err
			}
			x.report.Done = ReloadFailed
			continue
		}
		if err != nil {
			return err
		}
		err = x.verify(ctx, file)
		// A pooler may have its own copy of the file, which arrives later than ours. That its address is a loopback one says nothing
		// about it: so is a sidecar's.
		if err == nil || x.o.Version == nil || x.refused != nil || x.root != "" || waiting.Err() != nil {
			return err
		}
		x.say(ReloadPgBouncer, x.Name, "its own file may not have arrived yet, reloading it again: %v", err)
		sleep(waiting, arrivalPoll)
		before := x.before
		if err := x.look(ctx, waiting); err != nil {
			return err
		}
		x.before = before
	}
}

// errHeld: a handover has begun since the last look.
var errHeld = errors.New("held")

// look finds a way to the pooler and waits until no handover holds it: RELOAD would put back the settings that a pause has changed.
// What it asks has time of its own beside the wait's: an answer that the wait's end cuts off is not a console that refuses us.
func (x *poolerReload) look(ctx, waiting context.Context) error {
	told := false
	for {
		holder, err := x.heldBy(ctx)
		if err != nil {
			if err := x.findProcess(err); err != nil {
				return err
			}
			holder = x.leaseHolder()
		}
		if holder == "" {
			return nil
		}
		if x.rt.DryRun {
			x.say(ReloadPgBouncer, x.Name, "would wait: it is paused (%s)", holder)
			return nil
		}
		if !told {
			told = true
			x.say(ReloadPgBouncer, x.Name, "waiting for the end of a handover: it is paused (%s)", holder)
		}
		sleep(waiting, handoverPoll)
		if waiting.Err() != nil {
			return &fault{problem: ProblemHandover, err: fmt.Errorf("not reloaded: still paused (%s) after %s, and RELOAD would undo what the pause has set", holder, x.o.Timeout)}
		}
	}
}

// heldBy says who holds the pooler by its mark. The error is the console's.
func (x *poolerReload) heldBy(ctx context.Context) (string, error) {
	if !x.HasConsole() {
		return "", pgb.ErrNoConsole
	}
	ctx, cancel := context.WithTimeout(ctx, consoleTimeout)
	defer cancel()
	holder, err := x.holder(ctx)
	if err != nil {
		return "", err
	}
	x.refused = nil
	if holder == "" {
		x.before, err = x.Settings(ctx)
	}
	return holder, err
}

func (x *poolerReload) holder(ctx context.Context) (string, error) {
	state, err := x.State(ctx)
	switch {
	case err != nil:
		return "", err
	case state.Mark != nil:
		return "by " + state.Mark.Owner.String(), nil
	case state.Paused:
		// By hand, or a RELOAD came between mark and PAUSE: then each further one would do harm again.
		return "without a mark", nil
	}
	// The mark was asked for first: once more, last.
	mark, err := x.Holder(ctx)
	if err != nil || mark == nil {
		return "", err
	}
	return "by " + mark.Owner.String(), nil
}

// leaseHolder says by this member's own leases who holds a pooler that cannot be asked.
func (x *poolerReload) leaseHolder() string {
	var s Status
	s.leases(x.rt)
	for _, l := range s.Leases {
		if time.Now().Before(l.Until) {
			return "by " + l.Owner + ", as this member's lease says"
		}
	}
	return ""
}

// findProcess is the way round a console that does not answer: the pidfile's process, else the only pgbouncer here.
func (x *poolerReload) findProcess(console error) error {
	x.refused = console
	if x.process != nil {
		return nil
	}
	var err error
	switch {
	case x.Pidfile != "":
		x.process, err = pgb.OpenPidfile(x.Pidfile)
	case gone(console):
		// Whatever pgbouncer runs here, it is not the one at that address.
		return &fault{problem: ProblemUnreachable, err: fmt.Errorf("not reloaded: %w", console)}
	case x.Local() && x.alone:
		x.process, err = pgb.OnlyProcess(os.Geteuid())
	case x.Local():
		err = errors.New("several poolers of this host are configured: each needs its pidfile to be signalled")
	default:
		return &fault{problem: ProblemUnreachable, err: fmt.Errorf("not reloaded: %w", console)}
	}
	if err != nil {
		return &fault{problem: ProblemUnreachable, err: fmt.Errorf("not reloaded: %w; and no signal was sent: %w", console, err)}
	}
	return nil
}

// readFile is the pooler's file as it is seen from here; nil, with the reason in the report, when it is not.
func (x *poolerReload) readFile() (*pgb.File, error) {
	path, root := x.Config, ""
	switch {
	case path != "":
	case x.rt.Config.Versions.PgBouncer.Line != "":
		path = x.rt.Config.Versions.PgBouncer.Line
	case x.Local():
		process := x.process
		if process == nil {
			var err error
			if process, err = x.ownProcess(); err != nil {
				x.report.NotVerified = fmt.Sprintf("its file is not known: set poolers[].config (%v)", err)
				return nil, nil
			}
			x.process = process
		}
		var err error
		if path, root, err = process.ConfigFile(); err != nil {
			x.report.NotVerified = fmt.Sprintf("its file is not known: set poolers[].config (%v)", err)
			return nil, nil
		}
		x.root = root
	default:
		x.report.NotVerified = "its file cannot be seen from here: set poolers[].config where it can"
		return nil, nil
	}
	x.report.File = path
	return pgb.ReadFile(path, root)
}

// check finds what must not be reloaded. Of a file with a line that this PgBouncer refuses, what stands before the line comes into
// force, and the rest of [pgbouncer] goes back to the defaults (1.18 to 1.26). A logfile that cannot be opened ends the process at its next
// line of log (1.18 to 1.26).
func (x *poolerReload) check(ctx context.Context, file *pgb.File) error {
	if file == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, consoleTimeout)
	defer cancel()
	console := x.Pooler
	if x.refused != nil {
		if console = x.peerConsole(ctx, file); console == nil {
			return nil
		}
		var err error
		if x.before, err = console.Settings(ctx); err != nil {
			return err
		}
	}
	if err := file.Check(x.before); err != nil || x.process == nil {
		return err
	}
	databases, err := console.ShowDatabases(ctx)
	if err != nil {
		return err
	}
	for _, d := range file.Diff(x.before, databases) {
		if d.Key != "logfile" || !filepath.IsAbs(d.Want) {
			continue
		}
		if _, err := os.Stat(filepath.Join(x.root, filepath.Dir(d.Want))); errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s:%d: logfile = %s: there is no such folder, and PgBouncer would end", d.File, d.Line, d.Want)
		}
	}
	return nil
}

func (x *poolerReload) ownProcess() (*pgb.Process, error) {
	if x.Pidfile != "" {
		return pgb.OpenPidfile(x.Pidfile)
	}
	if !x.alone {
		return nil, errors.New("several poolers of this host are configured")
	}
	return pgb.OnlyProcess(os.Geteuid())
}

func (x *poolerReload) reloadNow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, consoleTimeout)
	defer cancel()
	if x.refused == nil {
		// Once more, right before: reading and checking the file took a while.
		if holder, err := x.holder(ctx); err == nil && holder != "" {
			return errHeld
		}
		err := x.Reload(ctx)
		var answered *pgb.ServerError
		switch {
		case err == nil:
			x.report.How = "RELOAD"
			return nil
		case errors.As(err, &answered):
			x.report.How = "RELOAD"
			return &fault{problem: ProblemInvalidFile, err: err}
		}
		if err := x.findProcess(err); err != nil {
			return err
		}
	}
	if err := x.process.Reload(); err != nil {
		return &fault{problem: ProblemUnreachable, err: fmt.Errorf("%w; and %w", x.refused, err)}
	}
	x.report.How = fmt.Sprintf("SIGHUP to process %d", x.process.PID)
	return nil
}

// verify compares what runs with what the file says, until it is the same or effectTimeout is over.
func (x *poolerReload) verify(ctx context.Context, file *pgb.File) error {
	console := x.Pooler
	if x.refused != nil {
		if console = x.peerConsole(ctx, file); console == nil {
			x.report.Done = ReloadSignaled
			x.report.NotVerified = "no console answers"
			if x.HasConsole() {
				return &fault{problem: ProblemNotVerified, err: fmt.Errorf("%s was sent, and whether it took cannot be seen: %w", x.report.How, x.refused)}
			}
			return nil
		}
	}
	x.report.Done = ReloadDone
	showing, cancel := context.WithTimeout(ctx, effectTimeout)
	defer cancel()
	for {
		after, databases, err := x.running(ctx, console)
		if err != nil {
			return &fault{problem: ProblemNotVerified, err: fmt.Errorf("%s was sent, and whether it took cannot be seen: %w", x.report.How, err)}
		}
		x.report.Changed = changes(x.before, after)
		if file == nil {
			return nil
		}
		x.report.NotApplied, x.report.NeedsRestart = sorted(file.Diff(after, databases))
		if len(x.report.NotApplied) == 0 {
			x.report.Verified = true
			return nil
		}
		// An answer is the end of the matter; a signal's effect may be on its way.
		if x.refused == nil || showing.Err() != nil {
			x.report.Done = ReloadFailed
			texts := make([]string, len(x.report.NotApplied))
			for i, d := range x.report.NotApplied {
				texts[i] = d.String()
			}
			return &fault{problem: ProblemNotApplied, err: fmt.Errorf("after %s: %s", x.report.How, strings.Join(texts, ", "))}
		}
		sleep(showing, 50*time.Millisecond)
	}
}

// peerConsole is the console where our password does not count.
func (x *poolerReload) peerConsole(ctx context.Context, file *pgb.File) *pgb.Pooler {
	ctx, cancel := context.WithTimeout(ctx, consoleTimeout)
	defer cancel()
	if x.HasConsole() && x.Open(ctx) == nil {
		return x.Pooler // the reload has mended what was wrong with the password
	}
	if x.peer != nil {
		return x.peer
	}
	if file == nil {
		return nil
	}
	peer, err := x.process.PeerConsole(file)
	if err == nil {
		if err = peer.Open(ctx); err == nil {
			x.peer = peer
			return peer
		}
		peer.Close()
	}
	x.log.Debug("the process's own socket does not answer either", "pooler", x.Name, "error", err)
	return nil
}

func (x *poolerReload) running(ctx context.Context, console *pgb.Pooler) ([]pgb.Setting, []pgb.Database, error) {
	ctx, cancel := context.WithTimeout(ctx, consoleTimeout)
	defer cancel()
	settings, err := console.Settings(ctx)
	if err != nil {
		return nil, nil, err
	}
	databases, err := console.ShowDatabases(ctx)
	return settings, databases, err
}

// changes are the settings that differ; none when the ones before are not known.
func changes(before, after []pgb.Setting) []SettingDifference {
	old := make(map[string]string, len(before))
	for _, s := range before {
		old[s.Key] = s.Value
	}
	var out []SettingDifference
	for _, s := range after {
		if was, ok := old[s.Key]; ok && was != s.Value {
			out = append(out, SettingDifference{Key: s.Key, Want: s.Value, Running: was})
		}
	}
	return out
}

// wouldReload says how, and what the file would change.
func (x *poolerReload) wouldReload(ctx context.Context, file *pgb.File) error {
	x.report.Done, x.report.How = ReloadWould, "RELOAD"
	if x.refused != nil {
		x.report.How = fmt.Sprintf("SIGHUP to process %d", x.process.PID)
		return nil
	}
	if file == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, consoleTimeout)
	defer cancel()
	settings, databases, err := x.running(ctx, x.Pooler)
	if err != nil {
		return &fault{problem: ProblemUnreachable, err: err}
	}
	x.report.Changed, x.report.NeedsRestart = sorted(file.Diff(settings, databases))
	return nil
}

// sorted tells what a reload changes from what needs a restart. What the restart would refuse is not left for then.
func sorted(differences []pgb.Difference) (now, atRestart []SettingDifference) {
	for _, d := range differences {
		s := SettingDifference{File: d.File, Line: d.Line, Key: d.Key, Want: d.Want, Running: d.Running, Problem: d.Problem}
		if d.NeedsRestart && d.Problem == "" {
			atRestart = append(atRestart, s)
		} else {
			now = append(now, s)
		}
	}
	return now, atRestart
}
