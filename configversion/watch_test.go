package configversion

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

type sight struct {
	v   Version
	err error
	at  time.Time
}

// patience is for what comes at once on a machine that is not busy.
const patience = 10 * time.Second

// watching runs a watch until the test ends.
func watching(t *testing.T, src Source, events newWatcher) <-chan sight {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	sights := make(chan sight, 100000)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		watch(ctx, src, events, changes(func(v Version, err error) { sights <- sight{v, err, time.Now()} }))
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Error("the watch goes on after its context")
		}
	})
	return sights
}

func next(t *testing.T, sights <-chan sight) sight {
	t.Helper()
	select {
	case s := <-sights:
		return s
	case <-time.After(patience):
		t.Fatal("nothing was seen")
		return sight{}
	}
}

func expect(t *testing.T, sights <-chan sight, want Version) sight {
	t.Helper()
	s := next(t, sights)
	if s.err != nil || s.v != want {
		t.Fatalf("saw %d, %v; want %d", s.v, s.err, want)
	}
	return s
}

func expectAbsent(t *testing.T, sights <-chan sight) {
	t.Helper()
	if s := next(t, sights); !errors.Is(s.err, ErrAbsent) {
		t.Fatalf("saw %d, %v; want %v", s.v, s.err, ErrAbsent)
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// mounted is a volume and a source in it, as pods have them.
type mounted struct {
	volume  string
	source  Source
	payload func(n int) map[string]string
}

// mounts: the file of a volume, and a configuration file that a link outside of the volume leads to.
func mounts(t *testing.T) map[string]mounted {
	t.Helper()
	dir := t.TempDir()
	m := map[string]mounted{}
	for _, kind := range []string{"File", "Line"} {
		volume := filepath.Join(dir, kind)
		must(t, os.Mkdir(volume, 0o755))
		if kind == "File" {
			m[kind] = mounted{volume, File{filepath.Join(volume, "version")}, func(n int) map[string]string {
				return map[string]string{"version": strconv.Itoa(n), fmt.Sprintf("other%d", n%3): "x"}
			}}
			continue
		}
		ini := filepath.Join(dir, "pgbouncer.ini")
		must(t, os.Symlink(filepath.Join("Line", "conf", "pgbouncer.ini"), ini))
		m[kind] = mounted{volume, Line{ini}, func(n int) map[string]string {
			return map[string]string{
				"conf/pgbouncer.ini": fmt.Sprintf("[pgbouncer]\n%s; config-version: %d\n", strings.Repeat("; a line\n", 1000), n),
				"users.txt":          "x",
			}
		}}
	}
	return m
}

const swaps = 100

// Each swap is made when the one before was seen: none may be missed, and none be seen wrong. At once after it, the rest between two reads
// is in the time that is logged; after a rest, as kubelets write, it is not.
func TestKubeletSwaps(t *testing.T) {
	for kind, write := range kubelets {
		for name, m := range mounts(t) {
			t.Run(kind+" "+name+" at once", func(t *testing.T) { swapsSeen(t, m, write, 0) })
		}
		for name, m := range mounts(t) {
			t.Run(kind+" "+name+" rested", func(t *testing.T) { swapsSeen(t, m, write, 2*rest) })
		}
	}
}

func swapsSeen(t *testing.T, m mounted, write kubelet, between time.Duration) {
	sights := watching(t, m.source, fsnotify.NewWatcher)
	expectAbsent(t, sights)
	var took []time.Duration
	for n := 1; n <= swaps; n++ {
		<-time.After(between)
		at, err := write(m.volume, m.payload(n))
		must(t, err)
		took = append(took, expect(t, sights, Version(n)).at.Sub(at))
	}
	slices.Sort(took)
	median, most := took[swaps/2], took[swaps-1]
	t.Logf("%d swaps, seen after: median %s, max %s", swaps, median, most)
	if median > 400*time.Millisecond {
		t.Errorf("half of the swaps were seen after %s: not by events", median)
	}
}

// Swaps as fast as they can be made: some may be passed over, but nothing wrong is seen, and the last is seen soon.
func TestKubeletSwapsAtFullSpeed(t *testing.T) {
	for name, m := range mounts(t) {
		t.Run(name, func(t *testing.T) {
			_, err := kubeletWrite(m.volume, m.payload(1))
			must(t, err)
			sights := watching(t, m.source, fsnotify.NewWatcher)
			expect(t, sights, 1)
			const last = 1000
			start := time.Now()
			var at time.Time
			for n := 2; n <= last; n++ {
				at, err = kubeletWrite(m.volume, m.payload(n))
				must(t, err)
			}
			t.Logf("%d swaps in %s", last-1, time.Since(start))
			before, seen := Version(1), 0
			for before < last {
				s := next(t, sights)
				if s.err != nil || s.v <= before {
					t.Fatalf("saw %d, %v after %d", s.v, s.err, before)
				}
				before, seen = s.v, seen+1
				if took := s.at.Sub(at); s.v == last {
					t.Logf("%d versions seen, the last after %s", seen, took)
					if took > 3*time.Second {
						t.Errorf("the last was seen after %s", took)
					}
				}
			}
		})
	}
}

// A read that meets the kubelet's clean-up is not an absent file: reads without a pause while swaps go on without a pause.
func TestReadDuringSwaps(t *testing.T) {
	for kind, write := range kubelets {
		for name, m := range mounts(t) {
			t.Run(kind+" "+name, func(t *testing.T) { readsDuringSwaps(t, m, write) })
		}
	}
}

func readsDuringSwaps(t *testing.T, m mounted, write kubelet) {
	_, err := write(m.volume, m.payload(1))
	must(t, err)
	const enough = 500 // of each
	var reads atomic.Int64
	var ended atomic.Bool
	wrote := make(chan error, 1)
	go func() {
		defer ended.Store(true)
		for n := 2; n <= 2*enough || reads.Load() < enough; n++ {
			if _, err := write(m.volume, m.payload(n)); err != nil || t.Context().Err() != nil {
				wrote <- err
				return
			}
		}
		wrote <- nil
	}()
	var before Version
	for !ended.Load() {
		v, err := m.source.Read(t.Context())
		if err != nil || v < before {
			t.Errorf("read %d, %v after %d", v, err, before)
			reads.Store(enough)
			break
		}
		before = v
		reads.Add(1)
	}
	must(t, <-wrote)
	t.Logf("%d reads", reads.Load())
	if reads.Load() < enough {
		t.Errorf("only %d reads", reads.Load())
	}
}

// Without events the poll alone sees each swap within about a second.
func TestPollAlone(t *testing.T) {
	for name, m := range mounts(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sights := watching(t, m.source, nil)
			expectAbsent(t, sights)
			for n := 1; n <= 4; n++ {
				at, err := kubeletWrite(m.volume, m.payload(n))
				must(t, err)
				took := expect(t, sights, Version(n)).at.Sub(at)
				t.Logf("seen after %s", took)
				if took > 3*time.Second {
					t.Errorf("seen after %s", took)
				}
			}
		})
	}
}

// Limits of inotify: one notice, and the poll goes on.
func TestNoInotify(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "version")
	must(t, os.WriteFile(path, []byte("1"), 0o644))
	sights := watching(t, File{path}, func() (*fsnotify.Watcher, error) { return nil, syscall.EMFILE })
	notice := next(t, sights)
	if _, ok := errors.AsType[*PollingError](notice.err); !ok || !errors.Is(notice.err, syscall.EMFILE) {
		t.Fatal(notice)
	}
	expect(t, sights, 1)
	for v := Version(2); v <= 4; v++ {
		must(t, os.WriteFile(path+"~", []byte(v.String()), 0o644), os.Rename(path+"~", path))
		expect(t, sights, v)
	}
	v, err := wait(t.Context(), File{path}, 4, nil, func() (*fsnotify.Watcher, error) { return nil, syscall.ENOSPC })
	if v != 4 || err != nil {
		t.Error(v, err)
	}
}

// The directory comes late, goes, comes back, and is replaced by another.
func TestDirectoryComesAndGoes(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir := filepath.Join(root, "a", "b")
	path := filepath.Join(dir, "version")
	sights := watching(t, File{path}, fsnotify.NewWatcher)
	expectAbsent(t, sights)
	for v := Version(1); v <= 5; v++ {
		start := time.Now()
		must(t, os.MkdirAll(dir, 0o755), os.WriteFile(path+"~", []byte(v.String()), 0o644), os.Rename(path+"~", path))
		expect(t, sights, v)
		t.Logf("new directory: seen after %s", time.Since(start))
		must(t, os.RemoveAll(filepath.Join(root, "a")))
		expectAbsent(t, sights)
	}
	other := filepath.Join(root, "other")
	must(t, os.MkdirAll(dir, 0o755), os.WriteFile(path+"~", []byte("10"), 0o644), os.Rename(path+"~", path))
	expect(t, sights, 10)
	// From above: inotify tells nothing of it.
	must(t, os.MkdirAll(filepath.Join(other, "b"), 0o755), os.WriteFile(filepath.Join(other, "b", "version"), []byte("11"), 0o644))
	must(t, renameExchange(filepath.Join(root, "a"), other))
	expect(t, sights, 11)
	// And the new directory's events count.
	start := time.Now()
	must(t, os.WriteFile(path+"~", []byte("12"), 0o644), os.Rename(path+"~", path))
	if took := expect(t, sights, 12).at.Sub(start); took > 900*time.Millisecond {
		t.Errorf("after the exchange a change is seen after %s", took)
	}
}

// A writer that truncates first.
func TestWriteInPlace(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "version")
	sights := watching(t, File{path}, fsnotify.NewWatcher)
	expectAbsent(t, sights)
	for v := Version(8); v <= 120; v++ {
		must(t, os.WriteFile(path, []byte(v.String()+"\n"), 0o644))
		for {
			s := next(t, sights)
			if s.err == nil && s.v == v {
				break
			}
			if !errors.Is(s.err, ErrAbsent) {
				t.Fatalf("saw %d, %v before %d", s.v, s.err, v)
			}
		}
	}
}

// A neighbour that is always written to costs no reads.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	src := &counted{Source: File{filepath.Join(dir, "version")}}
	must(t, os.WriteFile(filepath.Join(dir, "version"), []byte("1"), 0o644))
	sights := watching(t, src, fsnotify.NewWatcher)
	expect(t, sights, 1)
	start := time.Now()
	for i := range 3000 {
		must(t, os.WriteFile(filepath.Join(dir, "log"), []byte(strconv.Itoa(i)), 0o644))
	}
	must(
		t,
		os.WriteFile(filepath.Join(dir, "version~"), []byte("2"), 0o644),
		os.Rename(filepath.Join(dir, "version~"), filepath.Join(dir, "version")),
	)
	expect(t, sights, 2)
	if most := 3 + int64(time.Since(start)/time.Second); src.reads.Load() > most {
		t.Errorf("%d reads, at most %d expected", src.reads.Load(), most)
	}
}

type counted struct {
	Source
	reads atomic.Int64
}

func (c *counted) Paths() []string { return c.Source.(Paths).Paths() }

func (c *counted) Read(ctx context.Context) (Version, error) {
	c.reads.Add(1)
	return c.Source.Read(ctx)
}

// waitForOneLook is Wait with a time that is over once the source was looked at, however long that takes.
func waitForOneLook(t *testing.T, src Source, want Version) (Version, error) {
	ctx, over := context.WithCancelCause(t.Context())
	defer over(nil)
	return Wait(ctx, src, want, func(Version, error) { over(context.DeadlineExceeded) })
}

func TestWait(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "version")
	put := func(text string) { must(t, os.WriteFile(path+"~", []byte(text), 0o644), os.Rename(path+"~", path)) }
	src := File{path}

	t.Run("never arrives", func(t *testing.T) {
		_, err := waitForOneLook(t, src, 42)
		late, ok := errors.AsType[*TimeoutError](err)
		if !ok || late.Seen || late.Want != 42 || !errors.Is(late.Err, ErrAbsent) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%#v", err)
		}
		if want := "configuration version 42 did not arrive in time: " + path +
			": no configuration version yet: no such file"; err.Error() != want {
			t.Error(err)
		}
	})
	t.Run("arrives late, goes backwards before", func(t *testing.T) {
		put("40")
		steps := []string{"39", "", "41", "43"}
		var seen []string
		v, err := Wait(t.Context(), src, 42, func(v Version, err error) {
			if errors.Is(err, ErrAbsent) {
				seen = append(seen, "absent")
			} else {
				seen = append(seen, fmt.Sprint(v, err))
			}
			if len(steps) > 0 {
				put(steps[0])
				steps = steps[1:]
			}
		})
		if v != 43 || err != nil {
			t.Fatal(v, err)
		}
		if want := []string{"40 <nil>", "39 <nil>", "absent", "41 <nil>", "43 <nil>"}; !slices.Equal(seen, want) {
			t.Errorf("%q", seen)
		}
	})
	t.Run("too small", func(t *testing.T) {
		_, err := waitForOneLook(t, src, 44)
		late, ok := errors.AsType[*TimeoutError](err)
		if !ok || !late.Seen || late.Last != 43 || late.Err != nil || !strings.HasSuffix(err.Error(), path+" has 43") {
			t.Fatalf("%v", err)
		}
	})
	t.Run("newer", func(t *testing.T) {
		if v, err := Wait(t.Context(), src, 1, nil); v != 43 || err != nil {
			t.Fatal(v, err)
		}
	})
	t.Run("cancelled before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Wait(ctx, src, 1, nil); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	})
	t.Run("not a number", func(t *testing.T) {
		put("seven")
		start := time.Now()
		_, err := Wait(t.Context(), src, 1, nil)
		if _, ok := errors.AsType[*SyntaxError](err); !ok || time.Since(start) > 5*time.Second {
			t.Fatal(err, time.Since(start))
		}
	})
	t.Run("becomes not a number", func(t *testing.T) {
		put("1")
		_, err := Wait(t.Context(), src, 2, func(Version, error) { put("two") })
		if _, ok := errors.AsType[*SyntaxError](err); !ok {
			t.Fatal(err)
		}
	})
}

// refusing is a file that the system refuses; root may read what has no mode.
type refusing struct {
	File
	until time.Time
}

func (r refusing) Read(ctx context.Context) (Version, error) {
	if time.Now().Before(r.until) {
		return 0, &fs.PathError{Op: "open", Path: r.Path, Err: syscall.EACCES}
	}
	return r.File.Read(ctx)
}

func TestRefusedForAMoment(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "version")
	must(t, os.WriteFile(path, []byte("42"), 0o644))
	if v, err := Wait(t.Context(), refusing{File{path}, time.Now().Add(500 * time.Millisecond)}, 42, nil); v != 42 || err != nil {
		t.Error(v, err)
	}
	start := time.Now()
	_, err := Wait(t.Context(), refusing{File{path}, start.Add(time.Hour)}, 42, nil)
	if took := time.Since(start); !errors.Is(err, fs.ErrPermission) || took < grace || took > patience {
		t.Error(err, took)
	}
}

// Waiting costs at most 1 % of a core, as the kernel counts it for a process that does nothing else.
func TestWaitingCostsNothing(t *testing.T) {
	t.Parallel()
	long := 10 * time.Second
	if testing.Short() {
		long = 3 * time.Second
	}
	for name, size := range map[string]int{"File": 0, "Line of 1 MiB": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := mounts(t)[map[bool]string{true: "Line", false: "File"}[size > 0]]
			payload := m.payload(41)
			for key, text := range payload {
				if size > 0 && strings.HasSuffix(key, ".ini") {
					payload[key] = strings.Repeat("db = host=10.0.0.1 port=5432\n; a comment\n", size/42) + text
				}
			}
			_, err := kubeletWrite(m.volume, payload)
			must(t, err)
			w := waiter{Path: m.source.(Paths).Paths()[0], Line: size > 0, For: long}
			setting, err := json.Marshal(w)
			must(t, err)
			child := exec.CommandContext(t.Context(), os.Args[0])
			child.Env = append(os.Environ(), waiterEnv+"="+string(setting), "GORACE=atexit_sleep_ms=0")
			child.Stderr = os.Stderr
			out, err := child.Output()
			must(t, err)
			ns, err := strconv.ParseInt(string(bytes.TrimSpace(out)), 10, 64)
			must(t, err)
			share := 100 * float64(ns) / float64(long)
			t.Logf(
				"%s: %s of waiting: %s of processor time, %.3f %% of a core (with the process's start: %s)",
				name,
				long,
				time.Duration(ns),
				share,
				child.ProcessState.UserTime()+child.ProcessState.SystemTime(),
			)
			if share > 1 {
				t.Errorf("%.3f %% of a core", share)
			}
		})
	}
}
