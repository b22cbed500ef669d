package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-runewidth"

	"github.com/pgbaton/pgbaton/state"
)

// painted is what a page may send to a terminal beside text: one of its colours, or the end of one.
var painted = regexp.MustCompile("\x1b\\[(0|1|31|32|33)m")

// hostile would set the title of the window, erase it, and go on in red; the last begins the same in one character (C1).
const hostile = "\x1b]0;owned\a\x1b[2J\x1b[31m\u009b31m\u202e"

// TestTerminal: on a real terminal status, check, reload and pause keep to its width, in colour, and obey NO_COLOR; what Patroni, the
// configuration and the journal say does not steer it.
func TestTerminal(t *testing.T) {
	patroni := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		body, _ := json.Marshal(map[string]any{"state": "running" + hostile, "role": "replica" + hostile, "server_version": 170000,
			"patroni": map[string]string{"version": "4.0.7" + hostile, "scope": "demo" + hostile, "name": "m1" + hostile}})
		_, _ = w.Write(body)
	}))
	defer patroni.Close()
	dir, err := os.MkdirTemp("/tmp", "p") // with a short name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	var journal bytes.Buffer
	e := json.NewEncoder(&journal)
	for i, event := range []string{state.EventPauseSent, state.EventDrained, state.EventReleased} {
		if err := e.Encode(state.Entry{Time: time.Now().Add(time.Duration(i) * time.Second), Hook: "before_stop", Handover: "x", Event: event,
			Pooler: "10.0.3.21:6432", Text: "a sentence of many words that says why it was done" + hostile, Took: time.Second}); err != nil {
			t.Fatal(err)
		}
	}
	config := "patroni: {url: \"" + patroni.URL + "\"}\npostgres: host=" + dir + " user=postgres\nstate_dir: " + dir + "/state\n" +
		"poolers: [{dsn: \"postgres://a@127.0.0.1:1/pgbouncer\"}, {dsn: \"postgres://a@127.0.0.1:2/pgbouncer\"}]\n"
	for name, text := range map[string]string{"pgbaton.yaml": config, "state/journal.jsonl": journal.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "pgbaton")
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	say := func(columns int, env []string, args ...string) string {
		cmd := exec.Command(program, append(args, "--config", dir+"/pgbaton.yaml")...)
		cmd.Env = append([]string{"GORACE=atexit_sleep_ms=0", "PATH=" + os.Getenv("PATH"), "TERM=xterm"}, env...)
		term := openTerminal(t, columns, cmd)
		<-term.ended
		return strings.ReplaceAll(term.text(), "\r\n", "\n")
	}
	for args, want := range map[string][]string{
		"status": {"replica?]0;owned", "POOLER", "127.0.0.1:2", "LAST HANDOVER", "before_stop", "says why it was", "PROBLEMS"},
		"check":  {"ERROR", "pooler-unreachable", "change", "a handover now would be spoiled"},
		"reload": {"TARGET", "postgres", "127.0.0.1:1", "not reloaded"},
		"resume": {"POOLER", "127.0.0.1:1"},
	} {
		for _, columns := range []int{80, 50} {
			text := say(columns, nil, args)
			plain := painted.ReplaceAllString(text, "")
			if text == plain {
				t.Errorf("%s is not in colour:\n%s", args, text)
			}
			for line := range strings.Lines(plain) {
				line = strings.TrimSuffix(line, "\n")
				if strings.HasPrefix(line, "pgbaton: ") || strings.HasPrefix(line, "time=") {
					continue // stderr, which has no tables
				}
				// A word that is longer than the room stays whole.
				if words := strings.Fields(line); runewidth.StringWidth(line) > columns && !tooLong(words, columns) {
					t.Errorf("%s: %d columns on a terminal of %d:\n%s", args, runewidth.StringWidth(line), columns, line)
				}
			}
			if i := strings.IndexFunc(plain, func(r rune) bool { return r != '\n' && oneLine("x"+string(r)+"x") != "x"+string(r)+"x" }); i >= 0 {
				t.Errorf("%s sends %q", args, plain[i:min(len(plain), i+20)])
			}
			all := strings.Join(strings.Fields(plain), " ")
			for _, w := range want {
				if !strings.Contains(all, w) {
					t.Errorf("%s on %d columns has no %q:\n%s", args, columns, w, plain)
				}
			}
		}
		for _, env := range []string{"NO_COLOR=1", "TERM=dumb"} {
			if text := say(80, []string{env}, args); strings.ContainsAny(text, "\x1b\u009b") {
				t.Errorf("%s with %s: %q", args, env, text)
			}
		}
	}
	// An empty NO_COLOR does not count. JSON keeps what was said, and steers nothing either.
	if text := say(80, []string{"NO_COLOR="}, "status"); !painted.MatchString(text) {
		t.Errorf("no colour with an empty NO_COLOR:\n%s", text)
	}
	text := say(80, nil, "status", "--output", "json")
	if strings.ContainsAny(text, "\x1b\u009b\u202e") || !json.Valid([]byte(text)) {
		t.Errorf("%q", text)
	}
	// In a pipe lines are whole and without colour.
	cmd := exec.Command(program, "check", "--config", dir+"/pgbaton.yaml")
	cmd.Env = []string{"TERM=xterm", "GORACE=atexit_sleep_ms=0"}
	out, _ := cmd.Output()
	if strings.Contains(string(out), "\x1b") || !regexp.MustCompile(`(?m)^  found   .{90,}$`).Match(out) {
		t.Errorf("%s", out)
	}
}

// tooLong: one of them leaves no room for what a line has before it.
func tooLong(words []string, columns int) bool {
	for _, w := range words {
		if runewidth.StringWidth(w) > columns-16 {
			return true
		}
	}
	return false
}

func TestTableForms(t *testing.T) {
	heads := []string{"POOLER", "DONE", "ERROR"}
	rows := func() [][]cell {
		return [][]cell{
			cells("10.0.0.1:6432", "resumed", ""),
			{{text: "10.0.0.2:6432"}, {text: "not resumed"}, bad("a 日本語 text of some words")},
		}
	}
	for width, want := range map[int]string{
		0: "POOLER         DONE         ERROR\n" +
			"10.0.0.1:6432  resumed\n" +
			"10.0.0.2:6432  not resumed  a 日本語 text of some words\n",
		53: "POOLER         DONE         ERROR\n" +
			"10.0.0.1:6432  resumed\n" +
			"10.0.0.2:6432  not resumed  a 日本語 text of some\n" +
			"                            words\n",
		40: "POOLER         DONE\n" +
			"10.0.0.1:6432  resumed\n" +
			"10.0.0.2:6432  not resumed\n" +
			"    a 日本語 text of some words\n",
		25: "POOLER  10.0.0.1:6432\n" +
			"DONE    resumed\n" +
			"\n" +
			"POOLER  10.0.0.2:6432\n" +
			"DONE    not resumed\n" +
			"ERROR   a 日本語 text of\n" +
			"        some words\n",
	} {
		var out bytes.Buffer
		(&page{out: &out, width: width}).table(heads, rows())
		if out.String() != want {
			t.Errorf("width %d:\n%s\nwant\n%s", width, out.String(), want)
		}
		// Colours take no room.
		var colours bytes.Buffer
		(&page{out: &colours, width: width, colour: true}).table(heads, rows())
		if got := painted.ReplaceAllString(colours.String(), ""); got != want || got == colours.String() {
			t.Errorf("width %d in colour:\n%q", width, colours.String())
		}
	}
}

func TestPlainJSON(t *testing.T) {
	var out bytes.Buffer
	p := &program{stdout: io.Writer(&out)}
	said := map[string]string{"x": hostile + "\U000e0041 ü 日本 𝄞"}
	if err := p.printJSON(said, true); err != nil {
		t.Fatal(err)
	}
	if i := bytes.IndexFunc(out.Bytes(), steers); i >= 0 {
		t.Errorf("%q", out.String())
	}
	if !strings.Contains(out.String(), "ü 日本 𝄞") {
		t.Error(out.String())
	}
	var back map[string]string
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back["x"] != said["x"] {
		t.Errorf("%v %q", err, back)
	}
}
