package file_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/pgbaton/pgbaton/file"
)

func write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, []byte(content), mode), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The new file is the old one but for its text; the old one is kept, the very one.
func TestReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "databases.ini")
	write(t, path, "old\n", 0o640)
	root := os.Geteuid() == 0
	if root {
		if err := os.Chown(path, 1234, 2345); err != nil {
			t.Fatal(err)
		}
	}
	was, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link.ini")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := file.Replace(link, []byte("old\n"), []byte("new, and longer\n")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	owner, before := info.Sys().(*syscall.Stat_t), was.Sys().(*syscall.Stat_t)
	if info.Mode() != was.Mode() || owner.Uid != before.Uid || owner.Gid != before.Gid {
		t.Errorf("mode %v owner %d:%d, was %v %d:%d", info.Mode(), owner.Uid, owner.Gid, was.Mode(), before.Uid, before.Gid)
	}
	if got := read(t, path); got != "new, and longer\n" {
		t.Errorf("%q", got)
	}
	kept, err := os.Stat(path + file.BeforeSuffix)
	if err != nil || !os.SameFile(kept, was) || read(t, path+file.BeforeSuffix) != "old\n" {
		t.Errorf("the file of before is not kept: %v", err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link that leads there is one no more: %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
}

// What somebody else has written meanwhile stands.
func TestReplaceChanged(t *testing.T) {
	for _, now := range []string{"edited\n", "o", "old\nand more\n"} {
		path := filepath.Join(t.TempDir(), "databases.ini")
		write(t, path, now, 0o644)
		if err := file.Replace(path, []byte("old\n"), []byte("new\n")); !errors.Is(err, file.ErrChanged) {
			t.Errorf("%v", err)
		}
		if got := read(t, path); got != now {
			t.Errorf("%q, want what was there", got)
		}
	}
}

// Somebody else writes all the time, and so do we: not one of their changes is lost, and no reader sees half a file.
func TestReplaceLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counts")
	write(t, path, "us \nthem \n", 0o644)
	const rounds = 100
	lines := func() (us, them string) {
		us, them, _ = strings.Cut(read(t, path), "\n")
		return us, strings.TrimSuffix(them, "\n")
	}
	var both sync.WaitGroup
	var mu sync.Mutex // an editor asks for its own lock; ours it does not know
	both.Go(func() {
		for range rounds {
			mu.Lock()
			text := read(t, path)
			next := strings.Replace(text, "them ", "them x", 1)
			other := path + ".theirs"
			write(t, other, next, 0o644)
			if read(t, path) == text { // what an editor does that looks
				if err := os.Rename(other, path); err != nil {
					t.Error(err)
				}
			}
			mu.Unlock()
		}
	})
	ours := 0
	for range rounds {
		mu.Lock()
		text := read(t, path)
		mu.Unlock()
		if !strings.HasPrefix(text, "us ") || !strings.HasSuffix(text, "\n") {
			t.Errorf("half a file: %q", text)
		}
		switch err := file.Replace(path, []byte(text), []byte(strings.Replace(text, "us ", "us y", 1))); {
		case err == nil:
			ours++
		case !errors.Is(err, file.ErrChanged):
			t.Error(err)
		}
	}
	both.Wait()
	us, them := lines()
	if ours == 0 || len(them) == len("them ") {
		t.Fatalf("%d of ours, %q of theirs: nothing was tried", ours, them)
	}
	if got := len(us) - len("us "); got > ours {
		t.Errorf("%d changes of ours, %d were told", got, ours)
	}
}

func TestMayReplace(t *testing.T) {
	dir := t.TempDir()
	mounted := filepath.Join(dir, "mounted")
	version := filepath.Join(mounted, "..2026_11_30")
	if err := os.MkdirAll(version, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(version, "databases.ini"), "x\n", 0o644)
	if err := errors.Join(os.Symlink("..2026_11_30", filepath.Join(mounted, "..data")),
		os.Symlink("..data/databases.ini", filepath.Join(mounted, "databases.ini"))); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "readonly.ini"), "x\n", 0o444)
	for path, want := range map[string]string{
		filepath.Join(mounted, "databases.ini"): "is mounted from a ConfigMap or Secret",
		filepath.Join(dir, "readonly.ini"):      "is read-only",
		filepath.Join(dir, "missing.ini"):       "no such file",
		dir:                                     "is a directory",
	} {
		err := file.MayReplace(path)
		var problem *file.Problem
		if !errors.As(err, &problem) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
		if err := file.Replace(path, []byte("x\n"), []byte("y\n")); err == nil {
			t.Errorf("%s was replaced", path)
		}
	}
	fine := filepath.Join(dir, "fine.ini")
	write(t, fine, "x\n", 0o644)
	if err := file.MayReplace(fine); err != nil {
		t.Error(err)
	}
}

// A disk that is full leaves the old file, whole.
func TestReplaceDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a file system")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount: %v %s", err, out)
	}
	defer func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }()
	path := filepath.Join(dir, "databases.ini")
	write(t, path, "old\n", 0o644)
	fill, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	for {
		if _, err := fill.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	if err := file.Replace(path, []byte("old\n"), []byte(strings.Repeat("new\n", 100))); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	if got := read(t, path); got != "old\n" {
		t.Errorf("%q", got)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
}
