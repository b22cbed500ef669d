package configversion

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

type fileCase struct {
	name, content string
	want          Version
	err           string // ErrAbsent's text among others
}

const absent = "no configuration version yet"

func testFiles(t *testing.T, source func(path string) Source, cases []fileCase) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(path, []byte(c.content), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := source(path).Read(t.Context())
			if got != c.want || !saysError(err, c.err) {
				t.Fatalf("%d, %v; want %d, %q", got, err, c.want, c.err)
			}
			if err != nil && (!strings.Contains(err.Error(), path) || len(err.Error()) > 400) {
				t.Errorf("error: %q", err.Error())
			}
			if errors.Is(err, ErrAbsent) != strings.Contains(c.err, absent) {
				t.Errorf("ErrAbsent: %v", err)
			}
		})
	}
}

func TestFile(t *testing.T) {
	testFiles(t, func(path string) Source { return File{path} }, []fileCase{
		{"plain", "42", 42, ""},
		{"newline", "42\n", 42, ""},
		{"CRLF and space", " \t42\r\n\r\n", 42, ""},
		{"BOM", "\xef\xbb\xbf42\r\n", 42, ""},
		{"quoted", `"42"`, 0, "4 bytes that are not a number is not a configuration version"},
		{"empty", "", 0, absent + ": the file is empty"},
		{"white space", "\n \n", 0, absent},
		{"BOM only", "\xef\xbb\xbf", 0, absent},
		{"two numbers", "42\n43\n", 0, "is not a configuration version"},
		{"negative", "-1\n", 0, `"-1" is not`},
		{"UTF-16", "\xff\xfe4\x002\x00", 0, "6 bytes that are not a number is not"},
		{"control characters", "\x1b[31mred", 0, "8 bytes that are not a number is not"},
		{"white space up to the limit", strings.Repeat(" ", maxFile-2) + "42", 42, ""},
		{"too long", strings.Repeat(" ", maxFile) + "42", 0, "longer than 4096 bytes"},
		{"huge", strings.Repeat("1", 32<<20), 0, "longer than 4096 bytes"},
	})
}

func TestLine(t *testing.T) {
	long := strings.Repeat("x", 200<<10)
	testFiles(t, func(path string) Source { return Line{path} }, []fileCase{
		{"semicolon", "[databases]\n; config-version: 42\n", 42, ""},
		{"hash", "# config-version: 42\nport = 5432\n", 42, ""},
		{"no newline at the end", "a = 1\n# config-version: 42", 42, ""},
		{"CRLF", "a = 1\r\n; config-version: 42\r\n", 42, ""},
		{"BOM", "\xef\xbb\xbf; config-version: 42\n", 42, ""},
		{"tight", ";config-version:42\n", 42, ""},
		{"wide", "  \t#   config-version \t:  42  \n", 42, ""},
		{"case and several signs", ";;# Config-Version: 042\n", 42, ""},
		{"the same twice", "; config-version: 42\na\n# config-version: 042\n", 42, ""},
		{
			"differ",
			"; config-version: 41\na\n# config-version: 42\n",
			0,
			"different configuration versions in one file: 41 in line 1, 42 in line 3",
		},
		{"differ, no newline", "; config-version: 42\n; config-version: 43", 0, "different configuration versions"},
		{"second is being written", "; config-version: 42\n; config-version: 4", 0, absent + ": the line is not complete"},
		{"value is being written", "; config-version: ", 0, absent},
		{"key is being written", "; config-ver", 0, absent},
		{"no value", "\n; config-version:\n", 0, `:2: "" is not a configuration version`},
		{"not a number", "; config-version: v42\n", 0, ":1: 3 bytes that are not a number is not"},
		{"negative", "; config-version: -42\n", 0, "is not"},
		{"something behind", "; config-version: 42 (spring)\n", 0, "is not"},
		{"20 digits", "; config-version: 12345678901234567890\n", 0, "is not"},
		{"not a comment", "config-version: 42\nx = 1 # config-version: 43\n", 0, absent},
		{"another key", "# my-config-version: 42\n# config-versions: 42\n# config-version 42\n", 0, absent},
		{"empty", "", 0, absent},
		{"none", "[pgbouncer]\nauth_type = scram-sha-256\n", 0, absent + `: no line "# config-version: NUMBER"`},
		{"behind a long line", long + "\n; config-version: 42\n", 42, ""},
		{"within a long line", strings.Repeat("x", 64<<10) + "; config-version: 41\n; config-version: 42\n", 42, ""},
		{"a long one", "; config-version: " + long + "\n", 0, ":1: 48 bytes or more that are not a number is not"},
		{"a long comment", "; " + long + "\n; config-version: 42\n", 42, ""},
		{"signs without a line's beginning", "a ;; config-version: 42\n", 0, absent},
		{"key again behind", "; config-version: 42 ; config-version: 43\n", 0, "is not"},
		{"hyphens", strings.Repeat("-", 1<<20) + "\n;-config-version: 1\n-;- config-version: 2\n; config-version: 42\n", 42, ""},
		{
			"across reads",
			strings.Repeat("; a line of 20 bytes\n", 9999) + "; config-version: v\n",
			0,
			":10000: a byte that is not a number is not",
		},
		{
			"behind a line that fills reads",
			strings.Repeat("x", 2*bufSize-1) + "\n; config-version: v\n",
			0,
			":2: a byte that is not a number is not",
		},
		{"a version, then white space", "; config-version: 42" + strings.Repeat(" ", bufSize) + "\n", 0, "is not"},
		{"NUL", "; config-version: 42\x00\n", 0, `"42\x00" is not`},
		{"up to the limit", strings.Repeat("#\n", maxLine/2-10) + "; config-version: 42\n"[:20], 42, ""},
		{"too long", "; config-version: 42\n" + strings.Repeat("#\n", maxLine/2), 0, "longer than 16 MiB"},
		{"one line, too long", strings.Repeat("#", maxLine+1), 0, "longer than 16 MiB"},
	})
}

// Wherever the reads' borders fall in it, the line is found, with its number.
func TestLineAcrossReads(t *testing.T) {
	for pad := bufSize - 50; pad < bufSize+10; pad++ {
		for _, fill := range []string{"x", "\n"} {
			text := strings.Repeat(fill, pad) + "\n; config-version: 42\nx\n; config-version: 43\n"
			_, err := scan("f", strings.NewReader(text))
			line := strings.Count(text[:strings.Index(text, ";")], "\n") + 1
			if want := fmt.Sprintf("42 in line %d, 43 in line %d", line, line+2); !saysError(err, want) {
				t.Fatalf("%q %d times: %v, want %s", fill, pad, err, want)
			}
		}
	}
}

// What is no file is neither waited on nor waited for.
func TestNotAFile(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(
		syscall.Mkfifo(at("fifo"), 0o644),
		os.Symlink("nowhere", at("dangling")),
		os.Symlink("loop", at("loop")),
		os.WriteFile(at("plain"), []byte("1"), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir:                      "not a regular file",
		at("fifo"):               "not a regular file",
		"/dev/null":              "not a regular file",
		at("missing"):            absent + ": no such file",
		at("no/such/dir"):        absent,
		at("dangling"):           absent,
		at("loop"):               "too many levels of symbolic links",
		at("plain/below"):        "not a directory",
		"":                       absent,
		strings.Repeat("x", 300): "file name too long",
	} {
		for _, src := range []Source{File{path}, Line{path}} {
			start := time.Now()
			_, err := src.Read(t.Context())
			if !saysError(err, want) || errors.Is(err, ErrAbsent) != strings.Contains(want, absent) {
				t.Errorf("%T %.60s: %v, want %q", src, path, err, want)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("%T %s took %s", src, path, took)
			}
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (File{at("plain")}).Read(ended); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A text says what a file with it says, errors and all.
func TestInText(t *testing.T) {
	dir := t.TempDir()
	for i, text := range []string{
		"; config-version: 42\n[pgbouncer]\n", "\n\n# Config-Version:7", "", "[pgbouncer]\n", "; config-version: 1\n; config-version: 2\n",
		"x\n; config-version: 4x\n", "; config-version: 4\n; config-version:", "config-version: 4\n", "\xef\xbb\xbf; config-version: 9\n",
	} {
		path := filepath.Join(dir, strconv.Itoa(i))
		must(t, os.WriteFile(path, []byte(text), 0o600))
		want, wantErr := Line{path}.Read(t.Context())
		got, err := InText(path, text)
		if got != want || fmt.Sprint(err) != fmt.Sprint(wantErr) || errors.Is(err, ErrAbsent) != errors.Is(wantErr, ErrAbsent) {
			t.Errorf("%q: %d, %v; in a file %d, %v", text, got, err, want, wantErr)
		}
	}
}
