package patroni_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/patroni"
)

// reloadedByPatroni reads texts as JSON and tells of each whether Patroni takes it over at a reload.
const reloadedByPatroni = `
import json, logging, os, sys, tempfile
logging.disable(logging.CRITICAL)
from patroni.config import Config
with tempfile.TemporaryDirectory() as folder:
    path, verdicts = os.path.join(folder, 'patroni.yml'), []
    for text in json.load(sys.stdin):
        with open(path, 'w', newline='') as f:
            f.write('scope: before')
        config = Config(path, None)
        with open(path, 'w', newline='') as f:
            f.write(text)
        verdicts.append(config.reload_local_configuration() is True)
print(json.dumps(verdicts))
`

// TestCheckConfig compares with what Patroni itself takes.
func TestCheckConfig(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	cases := []struct {
		name, text   string
		ok           bool
		line, column int // of the error
	}{
		{
			"good",
			"scope: demo\npostgresql:\n  authentication: {superuser: {password: hunter2}}\n  pg_hba:\n  - host all all 0.0.0.0/0 md5\n" +
				"# config-version: 50\n",
			true,
			0,
			0,
		},
		{"a key twice", "scope: a\nscope: b\n", true, 0, 0},
		{"anchors", "tags: &t {a: 1}\nother:\n  <<: *t\n  b: 2\n", true, 0, 0},
		{"one document", "%YAML 1.1\n---\nscope: a\n...\n", true, 0, 0},
		{"braces", "{scope: a, name: b}\n", true, 0, 0},
		{"Windows", "\ufeffscope: a\r\nname: b\r\n", true, 0, 0},
		{
			"tabs where they may be",
			"a: \"x\ty\" # it's\ta tab\nb: 'it''s\t'\nc:\n- \"host\tall\tall\t::/0\tmd5\"\nd: |\n  x\ty\n\n  \tz\ne: 1\n",
			true,
			0,
			0,
		},
		{"JSON", "{\n  \"scope\": \"\\u003ca\\\"b\\tc\",\n  \"tags\": {}\n}\n# config-version: 50\n", true, 0, 0},
		{"JSON and a tab", "{\n  \"scope\": \"a\"\n}\n\t# a tab\n# config-version: 51\n", false, 4, 1},
		{"indented with a tab", "scope: a\npostgresql:\n\tparameters: {password: hunter2}\n# config-version: 50\n", false, 3, 1},
		{"tab behind the colon", "scope: a\npassword:\thunter2\n", false, 2, 10},
		{"tab at the end", "scope: 'it'\nhunter2: \t\n  a: 1\n", false, 2, 10},
		{"tab behind quotes", "scope: 'it''s'\thunter2\n", false, 1, 16},
		{"tab behind a block", "d: |\n  x\ty\nhunter2:\t1\n", false, 3, 9},
		{"out of line", "scope: a\npostgresql:\n   listen: hunter2\n  data_dir: x\n", false, 4, 3},
		{"two colons", "password: hunter2: x\n", false, 1, 18},
		{"quote left open", "scope: a\npassword: \"hunter2\n", false, 2, 11},
		{"bracket left open", "scope: a\ntags: {password: hunter2\n", false, 2, 7},
		{"percent", "password: %hunter2\n", false, 1, 11},
		{"no such anchor", "password: *hunter2\n", false, 1, 11},
		{"a template", "password: {{ hunter2 }}\n", false, 1, 12},
		{"two documents", "scope: a\n---\npassword: hunter2\n", false, 2, 1},
		{"empty", "", false, 0, 0},
		{"a comment", "# hunter2\n", false, 0, 0},
		{"a list", "- hunter2\n", false, 0, 0},
		{"a word", "hunter2\n", false, 0, 0},
	}
	path := filepath.Join(t.TempDir(), "patroni.yml")
	texts := make([]string, len(cases))
	for i, c := range cases {
		texts[i] = c.text
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := patroni.CheckConfig(path)
		var at *file.Problem
		switch {
		case err == nil:
			if !c.ok {
				t.Errorf("%s: taken", c.name)
			}
		case c.ok:
			t.Errorf("%s: %v", c.name, err)
		case !errors.As(err, &at) || at.File != path || at.Line != c.line || at.Column != c.column:
			t.Errorf("%s: %v, want it at %d:%d", c.name, err, c.line, c.column)
		case strings.Contains(err.Error(), secret):
			t.Errorf("%s: a secret: %v", c.name, err)
		}
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "none.yml"), os.DevNull} {
		if err := patroni.CheckConfig(
			path,
		); err == nil || !strings.HasPrefix(err.Error(), path+": cannot be read: ") ||
			strings.Count(err.Error(), path) != 1 {
			t.Errorf("%s: %v", path, err)
		}
	}

	folder := t.TempDir()
	if err := patroni.CheckConfig(folder); err == nil || err.Error() != folder+": has no *.yml or *.yaml in it" {
		t.Error(err)
	}
	for name, text := range map[string]string{"a.yml": "scope: a\n", "b.yaml": "name: b\n", "c.conf": "{"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := patroni.CheckConfig(folder); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "d.yml"), []byte("a: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := patroni.CheckConfig(folder); err == nil || !strings.HasPrefix(err.Error(), folder+"/d.yml:2:") {
		t.Error(err)
	}

	for _, suite := range []string{single.SuiteTrixie, single.SuiteSid} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			var taken []bool
			single.Python(t, suite, reloadedByPatroni, texts, &taken)
			if len(taken) != len(cases) {
				t.Fatal(len(taken))
			}
			for i, c := range cases {
				if taken[i] != c.ok {
					t.Errorf("%s: Patroni takes it: %v", c.name, taken[i])
				}
			}
		})
	}
}
