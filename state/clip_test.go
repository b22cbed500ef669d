package state

import (
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestClip(t *testing.T) {
	for text, want := range map[string]string{
		"":                           "",
		"ten letter":                 "ten letter",
		"eleven lett":                "eleven let...",
		"a\nb\tc":                    "a\nb\tc",
		"\x1b[2Jred\x00":             " [2Jred ",
		"ä\xffä":                     "ä ä",
		"nineäää":                    "nineäää",
		"ninenineää":                 "ninenineä...",
		strings.Repeat("ä", 6):       "äääää...",
		"a" + strings.Repeat("ä", 6): "aääää...",
	} {
		if got := Clip(text, 10); got != want || !utf8.ValidString(got) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestJournalHugeText: a peer's error text of any size leaves a journal that can be read.
func TestJournalHugeText(t *testing.T) {
	dir := Dir{Path: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	j := dir.Journal("m1", "pause", "x")
	j.Add(Entry{Event: EventPauseSent, Pooler: "p:6432"})
	for _, letter := range []string{"x", "<", "\x00", "\xff"} {
		j.Add(Entry{Event: EventNotDrained, Pooler: strings.Repeat(letter, 20<<20), Text: strings.Repeat(letter, 20<<20)})
	}
	j.Add(Entry{Event: EventUndone, Pooler: "p:6432"})
	entries, err := ReadJournal(dir.Path, 100)
	if err != nil || len(entries) != 6 || entries[5].Event != EventUndone || len(entries[1].Text) > maxEntryText+3 {
		t.Errorf("%v: %d entries", err, len(entries))
	}
}
