package file_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/file"
	"golang.org/x/sys/unix"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// What is no regular file is an error at once, by a link as well.
func TestNotRegular(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must(
		t,
		syscall.Mkfifo(at("fifo"), 0o600),
		os.Symlink("fifo", at("link")),
		os.Symlink("loop", at("loop")),
		os.WriteFile(at("plain"), []byte("12345"), 0o600),
	)
	socket, err := net.Listen("unix", at("socket"))
	must(t, err)
	defer socket.Close()
	for path, want := range map[string]string{
		at("fifo"):        "is a named pipe, not a regular file",
		at("link"):        "is a named pipe, not a regular file",
		at("socket"):      "is a socket, not a regular file",
		dir:               "is a directory, not a regular file",
		"/dev/null":       "is a device, not a regular file",
		"/dev/tty":        "is a device, not a regular file",
		at("missing"):     "no such file or directory",
		at("plain/below"): "not a directory",
		at("loop"):        "too many levels of symbolic links",
		at("plain"):       "is larger than 4 bytes, the most that is read",
	} {
		start := time.Now()
		text, err := file.Read(path, 4)
		var named *fs.PathError
		if !errors.As(err, &named) || named.Path != path || named.Err.Error() != want || text != nil {
			t.Errorf("%s: %q, %v, want %s", path, text, err, want)
		}
		_, irregular := errors.AsType[*file.NotRegularError](err)
		_, large := errors.AsType[*file.TooLargeError](err)
		if irregular != strings.Contains(want, "regular") || large != strings.Contains(want, "larger") ||
			errors.Is(err, fs.ErrNotExist) != strings.Contains(want, "no such") {
			t.Errorf("%s: %#v", path, err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("%s took %s", path, took)
		}
	}
	if text, err := file.Read(at("plain"), 5); string(text) != "12345" || err != nil {
		t.Error(text, err)
	}
	f, err := file.Open(at("plain"))
	must(t, err)
	defer f.Close()
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Error(flags, err)
	}
}

// A file that becomes a named pipe between the look and the open is no trap either.
func TestSwappedForAPipe(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "f"), filepath.Join(dir, "g")
	must(t, os.WriteFile(path, []byte("1"), 0o600), syscall.Mkfifo(other, 0o600))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 3000 {
			if err := unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	pipes := 0
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		text, err := file.Read(path, 10)
		if _, irregular := errors.AsType[*file.NotRegularError](err); irregular {
			pipes++
		} else if err != nil || string(text) != "1" {
			t.Fatalf("%q, %v", text, err)
		}
	}
	t.Logf("%d reads met the pipe", pipes)
}

func TestWalk(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	at := func(name string) string { return filepath.Join(dir, name) }
	must(
		t,
		os.MkdirAll(at("real/sub"), 0o755),
		os.WriteFile(at("real/sub/f"), nil, 0o644),
		os.Symlink(
			"real",
			at("rel"),
		),
		os.Symlink(at("rel/sub"), at("abs")),
		os.Symlink("../real/sub/f", at("real/up")),
		os.Symlink("loop", at("loop")),
	)
	for path, want := range map[string][]file.Hop{
		"real/sub/f":    {{at("real/sub"), "f", ""}},
		"abs/f":         {{dir, "abs", at("rel/sub")}, {dir, "rel", "real"}, {at("real/sub"), "f", ""}},
		"real/up":       {{at("real"), "up", "../real/sub/f"}, {at("real/sub"), "f", ""}},
		"missing/x/y":   {{dir, "missing", ""}},
		"rel/missing/y": {{dir, "rel", "real"}, {at("real"), "missing", ""}},
		"rel":           {{dir, "rel", "real"}, {dir, "real", ""}},
	} {
		if got := file.Walk("", at(path)); !slices.Equal(got, want) {
			t.Errorf("%s: %+v", path, got)
		}
	}
	const kernels = 40 // links that Linux follows
	if got := file.Walk("", at("loop")); len(got) != kernels+1 {
		t.Errorf("%d hops in a loop", len(got))
	}
	if got := file.Walk("", "/"); len(got) != 1 {
		t.Error(got)
	}
}

// In another root an absolute link and .. stay inside.
func TestWalkInRoot(t *testing.T) {
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	must(
		t,
		os.MkdirAll(at("etc/real"), 0o755),
		os.WriteFile(at("etc/real/f"), nil, 0o644),
		os.Symlink("/etc/real", at("etc/link")),
		os.Symlink("../../../etc/link/f", at("etc/up")),
		os.Symlink("/proc/self/fd/1", at("etc/out")),
	)
	folder, err := os.Open(root)
	must(t, err)
	defer folder.Close()
	for path, want := range map[string][]file.Hop{
		"/etc/link/f":       {{"/etc", "link", "/etc/real"}, {"/etc/real", "f", ""}},
		"/../etc/up":        {{"/etc", "up", "../../../etc/link/f"}, {"/etc", "link", "/etc/real"}, {"/etc/real", "f", ""}},
		"/etc/out":          {{"/etc", "out", "/proc/self/fd/1"}, {"/", "proc", ""}},
		"/etc/real/../none": {{"/etc", "none", ""}},
	} {
		for _, from := range []string{root, "/proc/self/fd/" + itoa(int(folder.Fd()))} {
			if got := file.Walk(from, path); !slices.Equal(got, want) {
				t.Errorf("%s: %+v", path, got)
			}
		}
	}
}

func itoa(n int) string {
	b, _ := json.Marshal(n)
	return string(b)
}

func TestProblem(t *testing.T) {
	for want, p := range map[string]file.Problem{
		"is wrong":                                  {Problem: "is wrong"},
		"a.yml: is wrong":                           {File: "a.yml", Problem: "is wrong", Column: 7},
		"a.yml:3: is wrong":                         {File: "a.yml", Line: 3, Problem: "is wrong"},
		"a.yml:3:7: is wrong":                       {File: "a.yml", Line: 3, Column: 7, Problem: "is wrong"},
		"a.yml:3: port: is wrong: write 5432":       {File: "a.yml", Line: 3, Name: "port", Problem: "is wrong", Hint: "write 5432"},
		`a.yml: unknown key "prot" (meant "port"?)`: {File: "a.yml", Name: "prot", Problem: `unknown key "prot"`, Hint: `meant "port"?`},
		"a.yml: port is wrong":                      {File: "a.yml", Name: "port", Problem: "port is wrong"},
		"--port: is wrong":                          {Name: "--port", Problem: "is wrong"},
	} {
		var err error = &p
		if p.String() != want || err.Error() != want {
			t.Errorf("%s\nwant %s", p, want)
		}
	}
	err := error(&file.Problem{Problem: "x", Err: fs.ErrPermission})
	if !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
	for want, p := range map[string]file.Problem{
		`{"problem":"x"}`: {Problem: "x", Err: fs.ErrPermission},
		`{"file":"f","line":1,"column":2,"name":"n","problem":"x","hint":"h"}`: {File: "f", Line: 1, Column: 2, Name: "n", Problem: "x",
			Hint: "h"},
	} {
		if got, err := json.Marshal(p); err != nil || string(got) != want {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
}

func TestPermissions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(path, nil, 0o600))
	for _, c := range []struct {
		mode         fs.FileMode
		plain, asked string // what is said of a secret
	}{
		{0o600, "", ""},
		{0o640, "", ""},
		{0o440, "", ""},
		{0o644, "", "everybody can read it (mode 0644): chmod o-r"},
		{0o660, "its group can write it (mode 0660): chmod g-w", "its group can write it (mode 0660): chmod g-w"},
		{0o602, "everybody can write it (mode 0602): chmod go-w", "everybody can write it (mode 0602): chmod go-w"},
		{0o666, "everybody can write it (mode 0666): chmod go-w", "everybody can write it (mode 0666): chmod go-w"},
	} {
		must(t, os.Chmod(path, c.mode))
		info, err := os.Stat(path)
		must(t, err)
		if plain, secret := file.Permissions(info, false), file.Permissions(info, true); plain != c.plain || secret != c.asked {
			t.Errorf("%04o: %q, %q", c.mode, plain, secret)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	must(t, os.Chmod(path, 0o600), os.Chown(path, 65534, 0))
	info, err := os.Stat(path)
	must(t, err)
	if got, want := file.Permissions(info, false), "belongs to uid 65534, who can change it, and we are uid 0: chown it"; got != want {
		t.Errorf("%q", got)
	}
}
