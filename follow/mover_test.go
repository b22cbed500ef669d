package follow_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

// Clients that wait during a pause go on at the other server, on every version; the file is what it was but for the addresses, and the mark
// of the pause stands. A client of a "*" line goes with them, and the entry for reading stays.
func TestMove(t *testing.T) {
	for _, suite := range membertest.Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			here, there := membertest.SharedPostgres(t), membertest.OwnPostgres(t)
			n := newNode(t, suite, here)
			v := n.mover(t)
			named := connect(t, n.pooler.DSN("postgres", "postgres"))
			other := connect(t, n.pooler.DSN("postgres", "template1"))
			reader := connect(t, n.pooler.DSN("postgres", "postgres_ro"))
			local := server(t, named)
			if server(t, other) != local || server(t, reader) != local {
				t.Fatal("not all lead to the local server")
			}
			before := n.text(t)
			if _, _, err := v.Mark(t.Context(), pgb.Guard, 6); err != nil {
				t.Fatal(err)
			}
			if _, err := v.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
			waiting := make(chan string, 2)
			for _, c := range []*pgconn.PgConn{named, other} {
				go func() { waiting <- server(t, c) }()
			}
			to := pgbini.Address{Host: there.Addr, Port: there.Port}
			moved, err := v.Move(t.Context(), to)
			if err != nil || !moved {
				t.Fatal(moved, err)
			}
			mark, err := v.Holder(t.Context())
			if err != nil || mark == nil || mark.Owner != pgb.Guard || mark.Nonce != 6 || mark.Original != membertest.DefaultRetry {
				t.Errorf("the mark is %+v, %v", mark, err)
			}
			select {
			case at := <-waiting:
				t.Errorf("a client was let through during the pause, to %s", at)
			default:
			}
			if _, err := v.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if at := <-waiting; at == local {
					t.Error("a client that waited has gone to the old server")
				}
			}
			if at := server(t, reader); at != local {
				t.Errorf("the entry for reading leads to %s now", at)
			}
			if moved, err := v.Move(t.Context(), to); err != nil || moved {
				t.Errorf("a second time: %v, %v", moved, err)
			}
			if _, err := v.Move(t.Context(), v.Local()); err != nil {
				t.Error(err)
			}
			if got := n.text(t); got != before {
				t.Errorf("there and back the file is\n%s\nand was\n%s", got, before)
			}
			if at := server(t, named); at != local {
				t.Errorf("back, it leads to %s", at)
			}
		})
	}
}

// A process that is killed at any step of a move leaves a whole file. The next one goes on from there, and a pause stands until then.
func TestMoveGoesOn(t *testing.T) {
	t.Parallel()
	to := pgbini.Address{Host: "127.0.0.9", Port: 1}
	put := func(t *testing.T, path string, text []byte) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	for name, left := range map[string]func(t *testing.T, n *node, before, after []byte){
		"half of the new file is written": func(t *testing.T, n *node, _, after []byte) { put(t, n.file+".new", after[:len(after)/2]) },
		"the new file is written":         func(t *testing.T, n *node, _, after []byte) { put(t, n.file+".new", after) },
		"the two are exchanged": func(t *testing.T, n *node, before, after []byte) {
			put(t, n.file, after)
			put(t, n.file+".new", before)
		},
		"the file is replaced": func(t *testing.T, n *node, before, after []byte) {
			if err := file.Replace(n.file, before, after); err != nil {
				t.Fatal(err)
			}
		},
		"and read, which takes the mark off": func(t *testing.T, n *node, before, after []byte) {
			if err := file.Replace(n.file, before, after); err != nil {
				t.Fatal(err)
			}
			membertest.Reload(t, n.pooler)
		},
		"somebody has edited the file": func(t *testing.T, n *node, _, after []byte) {
			put(t, n.file+".new", after)
			put(t, n.file, []byte(n.text(t)+"sales = host=10.0.0.7\n"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, single.SuiteTrixie, membertest.SharedPostgres(t))
			v := n.mover(t)
			entries, before, err := v.Entries(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			after, err := pgbini.Repoint(before, entries, to)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := v.Mark(t.Context(), pgb.Guard, 4); err != nil {
				t.Fatal(err)
			}
			if _, err := v.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
			left(t, n, before, after)
			if _, err := v.Move(t.Context(), to); err != nil {
				t.Fatal(err)
			}
			if got := leads(t, v.Pooler)["postgres"]; got != to {
				t.Errorf("it leads to %v", got)
			}
			if got := n.text(t); !strings.HasPrefix(got, string(after)) ||
				strings.Contains(name, "edited") != strings.Contains(got, "sales") {
				t.Errorf("the file is\n%s", got)
			}
			if _, err := os.Stat(n.file + ".new"); err == nil && name != "the two are exchanged" {
				t.Error("a new file is left beside it")
			}
			if s, err := v.State(t.Context()); err != nil || s.NotPaused() {
				t.Errorf("the pause does not stand: %+v, %v", s, err)
			}
		})
	}
}

// Each bad input is told by name, and nothing is touched.
func TestMoveRefuses(t *testing.T) {
	t.Parallel()
	pg := membertest.SharedPostgres(t)
	for name, c := range map[string]struct {
		change func(*testing.T, *node)
		want   string
	}{
		"an entry that is not there": {func(_ *testing.T, n *node) {
			n.Config.Poolers[0].Follow.Databases = []string{"postgres", "sales"}
		}, `has no entry "sales"`},
		"a read-only file": {func(t *testing.T, n *node) {
			if err := os.Chmod(n.file, 0o444); err != nil {
				t.Fatal(err)
			}
		}, "is read-only"},
		"a file that no %include reaches": {func(t *testing.T, n *node) {
			n.Config.Poolers[0].Follow.File = filepath.Join(n.pooler.Dir, "other.ini")
			n.write(t, n.Config.Poolers[0].Follow.File, "postgres = host=/run\n")
		}, "does not %include it"},
		"a mounted ConfigMap": {func(t *testing.T, n *node) {
			data := filepath.Join(n.pooler.Dir, "..2026")
			if err := errors.Join(os.Mkdir(data, 0o755), os.Rename(n.file, filepath.Join(data, "databases.ini")),
				os.Symlink("..2026", filepath.Join(n.pooler.Dir, "..data")), os.Symlink("..data/databases.ini", n.file)); err != nil {
				t.Fatal(err)
			}
		}, "is mounted from a ConfigMap"},
		"an entry that stands twice": {func(t *testing.T, n *node) {
			text, err := n.pooler.Config()
			if err == nil {
				err = n.pooler.RewriteConfig(strings.Replace(text, "\n\n[pgbouncer]", "\npostgres = host=/elsewhere\n[pgbouncer]", 1))
			}
			if err != nil {
				t.Fatal(err)
			}
		}, `has an entry "postgres", too`},
		"a file with an error": {func(t *testing.T, n *node) { n.write(t, n.file, "postgres host\n") }, `not a line "key = value"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, single.SuiteTrixie, pg)
			c.change(t, n)
			v := n.mover(t)
			was, at := leads(t, v.Pooler), n.text(t)
			moved, err := v.Move(t.Context(), pgbini.Address{Host: "127.0.0.9", Port: 5432})
			var problem *file.Problem
			if moved || !errors.As(err, &problem) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("moved %v: %v, want %s", moved, err, c.want)
			}
			if got := n.text(t); got != at {
				t.Errorf("the file is\n%s\nand was\n%s", got, at)
			}
			if got := leads(t, v.Pooler)["postgres"]; got != was["postgres"] {
				t.Errorf("it leads to %v", got)
			}
			if _, err := os.Stat(n.Config.Poolers[0].Follow.File + file.BeforeSuffix); err == nil {
				t.Error("a file of before is there")
			}
		})
	}
}
