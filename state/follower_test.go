package state

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writeEntry appends to a journal, as a hook does.
func writeEntry(t *testing.T, dir string, e Entry) {
	t.Helper()
	line, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	appendText(t, filepath.Join(dir, journalName), string(line)+"\n")
}

func appendText(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// TestFollower: each entry once, over rotation and restart.
func TestFollower(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, journalName)
	var got []string
	open := func() *Follower {
		return Dir{Path: dir, Log: slog.New(slog.DiscardHandler)}.OpenFollower(func(e Entry) { got = append(got, e.Event) })
	}
	expect := func(what, want string) {
		t.Helper()
		if text := strings.Join(got, " "); text != want {
			t.Errorf("%s: %q, want %q", what, text, want)
		}
		got = nil
	}
	add := func(event string) { writeEntry(t, dir, Entry{Time: time.Now(), Event: event}) }
	rotate := func() {
		t.Helper()
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
	}
	add("old")
	f := open()
	f.Poll()
	expect("what was there before the first serve", "")
	add("a")
	add("b")
	appendText(t, path, `{"event":"c`)
	f.Poll()
	f.Poll()
	expect("a line that is being written", "a b")
	appendText(t, path, "\"}\nnonsense\n"+strings.Repeat("x", 2*maxJournalLine)+"\n")
	add("d")
	f.Poll()
	expect("its end, and what is no entry", "c d")
	add("e")
	rotate()
	f.Poll()
	expect("renamed, nothing new yet", "e")
	add("f")
	f.Poll()
	expect("the new file", "f")
	add("g")
	rotate()
	add("h")
	f.Poll()
	expect("both", "g h")
	add("i")
	f = open()
	f.Poll()
	expect("another serve goes on", "i")
	rotate()
	add("j")
	rotate()
	add("k")
	f.Poll()
	expect("rotated twice", "j k")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	add("l")
	f.Poll()
	expect("cut", "l")

	// Nothing there at all, and then something.
	dir = t.TempDir()
	path = filepath.Join(dir, journalName)
	f = open()
	f.Poll()
	add("m")
	f.Poll()
	expect("the first entry ever", "m")
}
