package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

// Mover moves one pooler that stands beside us. It is for one goroutine.
type Mover struct {
	*pgb.Pooler
	config *config.Follow
	log    *slog.Logger
	main   string   // the pooler's pgbouncer.ini; "": not asked yet
	named  []string // databases that have a line of their own, as last read
}

// New is the mover of a pooler that [member.Member.Moves], on connections of its own; the caller closes it.
func New(m *member.Member, p *pgb.Pooler) *Mover {
	return &Mover{Pooler: p.Another(), config: m.Follow(p), log: m.Log.With("pooler", p.Name, "file", m.Follow(p).File)}
}

// Local is where the entries lead while this member leads.
func (v *Mover) Local() pgbini.Address {
	return pgbini.Address{Host: v.config.LocalHost, Port: v.config.LocalPort}
}

// Target is where the entries are to lead under this leader.
func (v *Mover) Target(l Leader) pgbini.Address {
	if l.Here {
		return v.Local()
	}
	return l.Address
}

// Entries are those of the file that are ours, and the text that they stand in. It asks the pooler which file it has, and touches nothing.
// The error is a [*file.Problem] where a person has to change something.
func (v *Mover) Entries(ctx context.Context) (entries []pgbini.DatabaseEntry, text []byte, err error) {
	if err := file.MayReplace(v.config.File); err != nil {
		return nil, nil, err
	}
	path, err := v.mainFile(ctx)
	if err != nil {
		return nil, nil, err
	}
	text, err = file.Read(v.config.File, maxFile)
	if err != nil {
		return nil, nil, err
	}
	main, err := pgbini.ReadFile(path, "")
	if err != nil {
		return nil, nil, err
	}
	v.named = main.DatabaseNames()
	name := main.Reads(v.config.File, "")
	if name == "" {
		return nil, nil, &file.Problem{File: v.config.File, Problem: "is not read by PgBouncer: " + path + " does not %include it",
			Hint: "set follow.file to the file that has the entries, or write %include " + v.config.File + " below [databases]"}
	}
	for _, database := range v.config.Databases {
		found := main.DatabaseEntries(database)
		if len(found) == 0 || !slices.ContainsFunc(found, func(e pgbini.DatabaseEntry) bool { return e.File == name }) {
			return nil, nil, &file.Problem{File: v.config.File, Problem: fmt.Sprintf("has no entry %q in [databases]", database),
				Hint: "set follow.databases to names that stand there"}
		}
		for _, e := range found {
			if e.File != name {
				return nil, nil, &file.Problem{File: e.File, Line: e.Line, Problem: fmt.Sprintf("has an entry %q, too", database),
					Hint: "it may stand in " + v.config.File + " alone"}
			}
			entries = append(entries, e)
		}
	}
	return entries, text, nil
}

// maxFile is what is read of a file of entries at most.
const maxFile = 4 << 20

// mainFile is the pooler's pgbouncer.ini. It is asked for once. Where PgBouncer is started anew with another one that does not read our
// file, the look after RELOAD tells.
func (v *Mover) mainFile(ctx context.Context) (string, error) {
	if v.Config != "" {
		return v.Config, nil
	}
	if v.main != "" {
		return v.main, nil
	}
	settings, err := v.Settings(ctx)
	if err != nil {
		return "", err
	}
	for _, s := range settings {
		if s.Key == "conffile" && filepath.IsAbs(s.Value) {
			v.main = s.Value
			return v.main, nil
		}
	}
	return "", &file.Problem{Name: "poolers[].config", Problem: "must be set: the pooler does not tell where its pgbouncer.ini is"}
}

// LeadsTo reports whether all entries of the file that are ours lead to an address.
func (v *Mover) LeadsTo(ctx context.Context, to pgbini.Address) (bool, error) {
	entries, _, err := v.Entries(ctx)
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(entries, func(e pgbini.DatabaseEntry) bool { return e.Address != to }), nil
}

// lockInterval is between tries to be the one that moves the pooler; it takes the other one some milliseconds.
const lockInterval = 5 * time.Millisecond

// attempts is how often somebody else may write the file while we do.
const attempts = 5

// Move has the pooler lead to an address: the file is written where it says something else, and read where the pooler goes elsewhere. A
// mark that is on the pooler stays on it. It reports whether the pooler was led anywhere else before. A pause stands; without one,
// connections that are busy are closed when they are free. It blocks until the console has answered or the context ends. With an error the
// file is whole: what it was, or what it is to be.
func (v *Mover) Move(ctx context.Context, to pgbini.Address) (moved bool, err error) {
	unlock, err := lockFolder(ctx, filepath.Dir(v.config.File))
	if err != nil {
		return false, err
	}
	defer unlock()
	var before, after []byte
	for n := 1; ; n++ {
		var entries []pgbini.DatabaseEntry
		if entries, before, err = v.Entries(ctx); err != nil {
			return false, err
		}
		if after, err = pgbini.Repoint(before, entries, to); err != nil {
			return false, err
		}
		if string(after) == string(before) {
			break
		}
		err = file.Replace(v.config.File, before, after)
		if err == nil {
			break
		}
		if !errors.Is(err, file.ErrChanged) || n == attempts {
			return false, err
		}
	}
	wrote := string(after) != string(before)
	if !wrote {
		leads, err := v.goesTo(ctx, to)
		if err != nil || leads {
			return false, err
		}
	}
	if err := v.reload(ctx); err != nil {
		return wrote, err
	}
	leads, err := v.goesTo(ctx, to)
	if err == nil && !leads {
		err = &file.Problem{File: v.config.File, Problem: "was read, and SHOW DATABASES does not say " + to.String(),
			Hint: "look at PgBouncer's log: RELOAD stops at the first error of its files"}
	}
	if err != nil {
		return true, err
	}
	v.log.Info("the pooler leads to", "address", to.String(), "databases", strings.Join(v.config.Databases, ","))
	return true, nil
}

// reload has the pooler read its files, and puts back the mark that it loses by that. Who resumes it meanwhile finds no mark to take off,
// so it is taken off here.
func (v *Mover) reload(ctx context.Context) error {
	before, err := v.State(ctx)
	if err != nil {
		return err
	}
	if err := v.Reload(ctx); err != nil || before.Mark == nil {
		return err
	}
	if _, _, err := v.Mark(ctx, before.Mark.Owner, before.Mark.Nonce); err != nil {
		return err
	}
	after, err := v.State(ctx)
	if err == nil && after.NotPaused() && !before.NotPaused() {
		return v.Unmark(ctx)
	}
	return err
}

// goesTo asks the pooler where it connects to. Databases of a "*" line are listed while they are in use.
func (v *Mover) goesTo(ctx context.Context, to pgbini.Address) (bool, error) {
	databases, err := v.ShowDatabases(ctx)
	if err != nil {
		return false, err
	}
	return leadsTo(v.config.Databases, v.named, databases, to), nil
}

// leadsTo decides whether the databases of a pooler that these entries make lead to an address. named are those that have a line of their
// own: all others are of the "*" line.
func leadsTo(entries, named []string, databases []pgbini.Database, to pgbini.Address) bool {
	for _, d := range databases {
		if isOf(entries, named, d.Name) && (d.Host != to.Host || d.Port != to.Port) {
			return false
		}
	}
	return true
}

// isOf reports whether a database is of one of these entries.
func isOf(entries, named []string, database string) bool {
	if !slices.Contains(named, database) {
		database = "*"
	}
	return slices.Contains(entries, database)
}

// serves reports whether a database is of one of the entries that are ours.
func (v *Mover) serves(database string) bool {
	return database != pgbini.AdminDatabase && isOf(v.config.Databases, v.named, database)
}

// lockFolder keeps a second mover of the same file out: the keeper, the worker and serve of a member are processes of their own. The lock
// ends with the process. Where the file system has no locks nobody is kept out; no change is lost for all that.
func lockFolder(ctx context.Context, path string) (unlock func(), err error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	for ctx.Err() == nil {
		if !errors.Is(unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK) {
			return func() { _ = dir.Close() }, nil
		}
		member.Sleep(ctx, lockInterval)
	}
	_ = dir.Close()
	return nil, fmt.Errorf("another process is moving the pooler of %s: %w", path, ctx.Err())
}

// Led is where a pooler's clients are, as its file has it.
func Led(entries []pgbini.DatabaseEntry) (to pgbini.Address, one bool) {
	for i, e := range entries {
		if i > 0 && e.Address != to {
			return to, false
		}
		to = e.Address
	}
	return to, len(entries) > 0
}
