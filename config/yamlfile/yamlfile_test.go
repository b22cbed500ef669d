package yamlfile_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pgbaton/pgbaton/config/yamlfile"
	"github.com/pgbaton/pgbaton/e2e/labroot"
	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/file"
)

// readByPyYAML reads texts as JSON and tells of each what safe_load makes of it: values as Python's str makes them.
const readByPyYAML = `
import json, sys, yaml, io
def told(v, depth=0):
    if depth > 12: return 'deeper'
    if isinstance(v, dict): return {str(k): told(x, depth + 1) for k, x in v.items()}
    if isinstance(v, (list, tuple)): return [told(x, depth + 1) for x in v]
    return None if v is None else str(v)
out = []
for text in json.load(sys.stdin):
    try:
        # As Patroni: from a file that is open as text.
        out.append({'taken': True, 'value': told(yaml.safe_load(io.TextIOWrapper(io.BytesIO(text.encode()), encoding='utf-8')))})
    except Exception as e:
        mark = getattr(e, 'problem_mark', None)
        context = getattr(e, 'context_mark', None)
        out.append({'taken': False, 'line': mark.line + 1 if mark else 0, 'context': context.line + 1 if context else 0})
print(json.dumps(out))
`

type verdict struct {
	Taken bool `json:"taken"`
	Value any  `json:"value"`
	Line  int  `json:"line"`
	// Context is the line in which the value began that is wrong.
	Context int `json:"context"`
}

func pyYAML(t *testing.T, suite string, texts []string) []verdict {
	t.Helper()
	var verdicts []verdict
	single.Python(t, suite, readByPyYAML, texts, &verdicts)
	if len(verdicts) != len(texts) {
		t.Fatal(len(verdicts))
	}
	return verdicts
}

// told is a value in the same form.
func told(v yamlfile.Value, depth int) any {
	if depth > 12 {
		return "deeper"
	}
	if entries, ok := v.Mapping(); ok {
		out := map[string]any{}
		for _, e := range entries {
			key, ok := e.Key.Python()
			if !ok {
				key = "None"
			}
			out[key] = told(e.Value, depth+1)
		}
		return out
	}
	if items, ok := v.Sequence(); ok {
		out := []any{}
		for _, item := range items {
			out = append(out, told(item, depth+1))
		}
		return out
	}
	if text, ok := v.Python(); ok {
		return text
	}
	return nil
}

// unlike are the texts that we read otherwise than PyYAML, and why it does not matter.
var unlike = map[string]string{
	"a date":                "a date that is none: Patroni has no dates",
	"dates":                 "a date is taken as it is written",
	"binary":                "nobody's patroni.yml has it",
	"set":                   "the same",
	"omap":                  "the same",
	"odd words in brackets": "[?x] is a list of a mapping for PyYAML, which no other parser says",
	"a long key":            "PyYAML knows no key of more than 1024 characters",
	"DEL":                   "PyYAML refuses the character 0x7f",
}

func corpus(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{
		"good":                       "scope: demo\npostgresql:\n  authentication: {superuser: {password: hunter2}}\n  pg_hba:\n  - host all all 0.0.0.0/0 md5\n# config-version: 50\n",
		"a key twice":                "scope: a\nscope: b\n",
		"a section twice":            "postgresql:\n  listen: a\npostgresql:\n  data_dir: x\n",
		"a key twice, quoted":        "'a': 1\na: 2\n\"a\": 3\n",
		"merge":                      "tags: &t {a: 1}\nother:\n  <<: *t\n  b: 2\n",
		"merge of a list":            "a: &a {x: 1, y: 1}\nb: &b {x: 2}\nc: {<<: [*a, *b], z: 3}\n",
		"merge and its own":          "a: &a {x: 1}\nc: {x: 5, <<: *a}\nd: {<<: *a, x: 6}\n",
		"merge twice":                "a: &a {x: 1}\nb: &b {x: 2, y: 3}\nc:\n  <<: *a\n  <<: *b\n",
		"merge and twice":            "a: &a {x: 1}\nb:\n  <<: *a\n  x: 2\n  x: 3\n",
		"merge of a number":          "a: 1\n<<: 5\n",
		"merge of nothing":           "a: 1\n<<:\n",
		"an anchor twice":            "a: &x 1\nb: *x\nc: &x 2\nd: *x\n",
		"anchors":                    "a: &a\n  b: &b {c: 1}\n  d: *b\ne: *a\n",
		"within itself":              "a: &a [*a]\n",
		"a mapping within itself":    "a: &a {b: *a}\n",
		"an alias as a key":          "a: &k x\n*k : y\n",
		"an anchor on nothing":       "password: &x\n",
		"version 1.1":                "%YAML 1.1\n---\nscope: a\n...\n",
		"version 1.2":                "# x\n\n%YAML 1.2\n---\nscope: a\n...\n",
		"version 2":                  "%YAML 2.0\n---\nscope: a\n",
		"braces":                     "{scope: a, name: b}\n",
		"Windows":                    "\ufeffscope: a\r\nname: b\r\n",
		"tabs where they may be":     "a: \"x\ty\" # it's\ta tab\nb: 'it''s\t'\nc:\n- \"host\tall\tall\t::/0\tmd5\"\nd: |\n  x\ty\n\n  \tz\ne: 1\n",
		"JSON":                       "{\n  \"scope\": \"\\u003ca\\\"b\\tc\",\n  \"tags\": {}, \"x\":1\n}\n# config-version: 50\n",
		"JSON with tabs":             "{\n\t\"scope\": \"a\"\n}\n",
		"JSON's solidus":             "{\"a\": \"\\/x\"}\n",
		"tab and comment":            "{\n  \"scope\": \"a\"\n}\n\t# a tab\n",
		"tab for indent":             "scope: a\npostgresql:\n\tparameters: {password: hunter2}\n",
		"tab behind the colon":       "scope: a\npassword:\thunter2\n",
		"tab at the end":             "scope: 'it'\nhunter2: \t\n  a: 1\n",
		"tab at a value's end":       "scope: a\t\nb: c\n",
		"tab before a comment":       "scope: a\t# x\nb: c\n",
		"a line with a tab":          "scope: a\n\t\nb: c\n",
		"tab behind quotes":          "scope: 'it''s'\thunter2\n",
		"tab behind a block":         "d: |\n  x\ty\nhunter2:\t1\n",
		"tab within a value":         "d: a\tb\n",
		"tab behind a dash":          "a:\n-\tb\n",
		"out of line":                "scope: a\npostgresql:\n   listen: hunter2\n  data_dir: x\n",
		"less than the first line":   "  a: b\nc: d\n",
		"all indented":               "  a: b\n  c: d\n",
		"two colons":                 "password: hunter2: x\n",
		"quote left open":            "scope: a\npassword: \"hunter2\n",
		"bracket left open":          "scope: a\ntags: {password: hunter2\n",
		"percent":                    "password: %hunter2\n",
		"at":                         "password: @hunter2\n",
		"backtick":                   "password: `hunter2\n",
		"no such anchor":             "password: *hunter2\n",
		"only a star":                "password: *\n",
		"unknown tag":                "password: !hunter2\n",
		"tag of Ansible":             "password: !vault |\n  abc\n  def\n",
		"tag of Python":              "a: !!python/tuple [1,2]\n",
		"an empty tag":               "password: !\n",
		"a template":                 "password: {{ hunter2 }}\n",
		"two documents":              "scope: a\n---\npassword: hunter2\n",
		"a second, empty document":   "scope: a\n---\n",
		"an empty document first":    "---\n---\na: b\n",
		"empty":                      "",
		"a comment":                  "# hunter2\n",
		"a list":                     "- hunter2\n",
		"a word":                     "hunter2\n",
		"text behind the dashes":     "--- {a: b}\n",
		"a key behind the dashes":    "--- a: b\n",
		"words":                      "a: yes\nb: No\nc: on\nd: OFF\ne: y\nf: n\ng: true\nh: TRUE\ni: tRue\nj: 'yes'\n",
		"nulls":                      "a: ~\nb: null\nc: NULL\nd:\ne: nuLL\nf: ''\n",
		"ints":                       "a: 012\nb: 0x1F\nc: 1_000\nd: 0b101\ne: 0o14\nf: +5\ng: -5\nh: 190:20:30\ni: 08\nj: 0\nk: 00\nl: 12345678901234567890123\nm: 5432\nn: _1\no: 0_7\np: 12:30\nq: -0x10\nr: '012'\n",
		"floats":                     "a: 1.5\nb: 1e5\nc: 1.0e+5\nd: 1.e5\ne: .5\nf: .inf\ng: -.INF\nh: .nan\ni: 1_0.5\nj: 190:20:30.15\nk: 1.0e5\nl: 100.0\nm: 1.\nn: 0.1e-7\no: 1.0e+22\np: 123456789.123456789\nq: 0.0001\nr: 1.50\ns: 0.0\nt: -0.0\n",
		"dates":                      "a: 2001-12-14\nb: 2001-12-14t21:59:43.10-05:00\n",
		"a date":                     "a: 2001-13-45\n",
		"tags of types":              "a: !!str 5\nb: !!int '5'\nc: !!float 5\nd: !!bool yes\ne: !!null ''\n",
		"tag of a string":            "a: !!str 012\nb: !!int '012'\nc: !!bool no\n",
		"binary":                     "a: !!binary aGVsbG8=\n",
		"set":                        "a: !!set {x, y}\n",
		"omap":                       "a: !!omap [x: 1]\n",
		"equals":                     "a: =\n",
		"addresses":                  "restapi: {listen: 0.0.0.0:8008, connect_address: 10.0.0.1:8008}\nx:\n  listen: 127.0.0.1:5432\n  y: '*:5432'\n",
		"a bracket as a value":       "x: [::]:8008\n",
		"IPv6":                       "x:\n  listen: '[::1]:8008'\n  y: ::1\n  z: fe80::1\n",
		"an asterisk":                "listen: *:5432\n",
		"colons in braces":           "a: {b:1}\nc: {d: e:f}\nd: {url: http://x:80/y, z: 1}\n",
		"odd words in brackets":      "a: [?x]\n",
		"keys of types":              "2: a\ntrue: b\n1.5: c\n~: d\n",
		"a list as a key":            "[a]: b\n",
		"a mapping as a key":         "{a: b}: c\n",
		"question marks":             "? a\n: b\n? c\n",
		"blocks":                     "a: |\n  x\n  y\nb: >-\n  x\n  y\n\n  z\nc: |+\n  x\n\nd: |2\n    x\n",
		"several lines":              "a: x\n  y\n  z\nb: 'x\n\n  y'\nc: \"x\\\n  y\"\n",
		"escapes":                    "a: \"\\x41\\u00e9\\U0001F600\\n\\e\\_\"\n",
		"an escape that is none":     "a: \"\\d\"\n",
		"number signs":               "a: x#y\nb: x #y\nc: '#x'\nd: #x\n",
		"lists":                      "a:\n- x\n- y: 1\n  z: 2\nb: 1\nc:\n- - x\n  - y\n- {b: c}\n",
		"a control character":        "a: \x01\n",
		"NUL":                        "a: \x00\n",
		"DEL":                        "a: \x7f\n",
		"next line":                  "a: x\u0085b: y\n",
		"variables":                  "a: ${X}\nb: $(X)\n",
		"a variable in braces":       "c: {d: ${X}}\n",
		"quotes within":              "a: it's\nb: x\"y\n",
		"text behind quotes":         "c: 'x' y\n",
		"a long key":                 strings.Repeat("a", 1100) + ": x\n",
		"last commas":                "a: [1,2,]\nb: {x: 1,}\n",
		"braces over lines":          "a: {x: 1,\n  y: 2,\nz: 3}\nb: [\n1,\n2\n]\n",
		"comments and indents":       "a:\n  b: c\n # x\n  d: e\n",
		"blank before colon":         "a : b\n",
		"no blank behind the colon":  "c :d\n",
		"Zalando's":                  "bootstrap:\n  initdb:\n  - auth-host: md5\n  - auth-local: trust\nkubernetes:\n  role_label: spilo-role\n  pod_ip: 10.2.0.7\npostgresql:\n  listen: '*:5432'\n  use_unix_socket: true\n  parameters:\n    shared_buffers: 128MB\n    log_line_prefix: '%t [%p]: [%l-1] %c %x %d %u %a %h '\n    archive_command: envdir \"/run/etc/wal-e.d/env\" wal-g wal-push \"%p\"\n",
		"Ansible's (vitabaks)":       "---\nscope: postgres-cluster\nname: pgnode01\nnamespace: /service/\nrestapi:\n  listen: 10.0.0.1:8008\n  connect_address: 10.0.0.1:8008\n#  certfile: x\netcd3:\n  hosts: 10.0.0.1:2379,10.0.0.2:2379\nbootstrap:\n  method: initdb\n  dcs:\n    ttl: 30\n    postgresql:\n      use_slots: true\n  initdb:  # Note: It needs to be a list (some options need values, others are switches)\n    - encoding: UTF8\n    - data-checksums\n  pg_hba:  # Add following lines to pg_hba.conf after running 'initdb'\n    - host replication replicator 127.0.0.1/32 md5\npostgresql:\n  listen: 10.0.0.1,127.0.0.1:5432\n  pgpass: /var/lib/postgresql/.pgpass_patroni\n  authentication:\n    superuser:\n      username: postgres\n      password: postgres-pass\n#    rewind:  # Has no effect on postgres 10 and lower\n  parameters:\n    unix_socket_directories: /var/run/postgresql\n  remove_data_directory_on_rewind_failure: false\nwatchdog:\n  mode: automatic  # Allowed values: off, automatic, required\ntags:\n  nofailover: false\n",
		"commented out to the end":   "scope: a\npostgresql:\n#  listen: x\n",
		"a password of digits":       "password: 0123456\nuser: 1e3\nx: 1_2\n",
		"merge by itself":            "a: &a\n  <<: *a\n",
		"a value without a blank":    "scope:a\n",
		"a dash without a blank":     "a:\n  -b\n",
		"names with a dot and slash": "pg.x: 1\na/b: 2\n-c: 3\n",
	}
	for _, suite := range []string{single.SuiteTrixie} {
		folder, err := labroot.Of(t.Context(), suite)
		if err != nil {
			t.Fatal(err)
		}
		for _, pattern := range []string{"etc/patroni/*.y*ml*", "usr/share/doc/patroni/examples/postgres*"} {
			names, _ := filepath.Glob(filepath.Join(folder, pattern))
			for _, name := range names {
				text, err := os.ReadFile(name)
				if err == nil && strings.HasSuffix(name, ".gz") {
					var unpacked *gzip.Reader
					if unpacked, err = gzip.NewReader(bytes.NewReader(text)); err == nil {
						text, err = io.ReadAll(unpacked)
					}
				}
				if err != nil {
					t.Fatal(err)
				}
				texts[filepath.Base(name)] = string(text)
			}
		}
	}
	return texts
}

// TestAsPyYAML compares with the PyYAML that Patroni has, for each text: whether it is taken, in which line it is wrong, and every value.
func TestAsPyYAML(t *testing.T) {
	single.Need(t)
	byName := corpus(t)
	var names, texts []string
	for name, text := range byName {
		names, texts = append(names, name), append(texts, text)
	}
	for _, suite := range []string{single.SuiteTrixie, single.SuiteSid} {
		for i, want := range pyYAML(t, suite, texts) {
			name, text := names[i], texts[i]
			document, err := yamlfile.Parse("f.yml", []byte(text))
			if err == nil {
				err = document.CheckPython([]byte(text))
			}
			problem, _ := errors.AsType[*file.Problem](err)
			wrong := ""
			switch {
			case want.Taken != (err == nil):
				wrong = cmp.Diff(want.Taken, err == nil)
			case err == nil:
				wrong = cmp.Diff(want.Value, told(document.Root, 0))
			case problem == nil:
				wrong = "not a *file.Problem"
			case strings.Contains(err.Error(), "hunter2"):
				wrong = "a secret"
			case want.Line > 0 && problem.Line != want.Line && problem.Line != want.Context:
				wrong = cmp.Diff(want.Line, problem.Line)
			}
			if (wrong != "") != (unlike[name] != "") {
				t.Errorf("%s: %s: %s %v\n%s", suite, name, wrong, err, text)
			}
		}
	}
	for name := range unlike {
		if _, ok := byName[name]; !ok {
			t.Errorf("%s is not in the corpus", name)
		}
	}
}

func TestTwice(t *testing.T) {
	for text, want := range map[string]string{
		"a: 1\nb: 2\n":                         "",
		"a: 1\n'a': 2\n":                       "f:2:1: not valid YAML: a key is set twice",
		"a:\n- {b: 1, c: {d: 1, d: 2}}\n":      "f:2:20: not valid YAML: a key is set twice",
		"a: &a {x: 1}\nb: {<<: *a, x: 2}\n":    "",
		"a: &a {x: 1}\nb: {<<: *a, <<: *a}\n":  "f:2:13: not valid YAML: a key is set twice",
		"a: &a [*a]\nb: {c: *a}\n":             "",
		"a: {b: 1}\nc: {b: 1}\n? [x]\n? [x]\n": "",
	} {
		document, err := yamlfile.Parse("f", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := document.Twice(); (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// What a hostile or broken writer leaves takes no time and no memory: each of these kept the parser that we had before for minutes.
func TestBounded(t *testing.T) {
	var wide, anchors, aliases strings.Builder
	for i := range 60000 {
		wide.WriteString(
			"k" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676%26)) + ": v\n",
		)
		anchors.WriteString("- &a" + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676%26)) + " x\n")
	}
	aliases.WriteString("a: &a [x,x,x,x,x,x,x,x,x,x]\n")
	for c := 'b'; c < 'p'; c++ {
		aliases.WriteString(string(c) + ": &" + string(c) + " [" + strings.Repeat("*"+string(c-1)+",", 10) + "]\n")
	}
	for name, text := range map[string]string{
		"brackets": strings.Repeat("[", 500000), "dashes": strings.Repeat("- ", 500000), "wide": wide.String(), "anchors": anchors.String(), "aliases": aliases.String(),
		"nested": strings.Repeat("[", 9000) + strings.Repeat("]", 9000),
	} {
		start := time.Now()
		document, err := yamlfile.Parse("f", []byte(text))
		if err == nil {
			_ = document.CheckPython([]byte(text))
			_ = document.Twice()
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s took %s: %v", name, took, err)
		}
	}
}
