// Package docs_test holds the documentation against the program.
package docs_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/pgbaton/pgbaton/config"
)

var pages = []string{"README.md", "docs/how-it-works.md", "docs/configuration.md", "docs/reload.md", "docs/facts.md", "docs/api.md",
	"docs/start.md", "docs/compared.md", "docs/problems.md", "docs/checks.md", "docs/maintenance.md", "docs/maintenance-order.md",
	"docs/monitoring.md", securityPage, "SECURITY.md"}

const root = ".."

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// blocks are a page's code blocks of a language.
func blocks(text, language string) []string {
	var found []string
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		if m[1] == language {
			found = append(found, m[2])
		}
	}
	return found
}

// inline is what stands between single backticks.
func inline(text string) []string {
	var found []string
	for _, m := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		found = append(found, m[1])
	}
	return found
}

// rows are the cells of the tables below a heading.
func rows(t *testing.T, text, heading string) [][]string {
	t.Helper()
	_, section, found := strings.Cut(text, "\n## "+heading+"\n")
	if !found {
		t.Fatalf("no heading %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var cells [][]string
	for line := range strings.Lines(section) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "| ") {
			row := strings.Split(strings.Trim(line, "|"), "|")
			for i := range row {
				row[i] = strings.TrimSpace(row[i])
			}
			cells = append(cells, row)
		}
	}
	return cells
}

func code(cell string) (string, bool) {
	if m := regexp.MustCompile("^`([^`]+)`").FindStringSubmatch(cell); m != nil {
		return m[1], true
	}
	return "", false
}

// program is pgbaton, built once for all tests: linking it costs seconds.
var program struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if program.dir != "" {
		_ = os.RemoveAll(program.dir)
	}
	os.Exit(code)
}

// build returns the path of the program, which no test may change.
func build(t *testing.T) string {
	t.Helper()
	program.once.Do(func() {
		if program.dir, program.err = os.MkdirTemp("", "pgbaton-docs"); program.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", filepath.Join(program.dir, "pgbaton"), "./cmd/pgbaton")
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			program.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if program.err != nil {
		t.Fatal(program.err)
	}
	return filepath.Join(program.dir, "pgbaton")
}

func makeTargets(t *testing.T) []string {
	t.Helper()
	var targets []string
	for _, m := range regexp.MustCompile(`(?m)^([a-z0-9][a-z0-9-]*):`).FindAllStringSubmatch(read(t, "Makefile"), -1) {
		targets = append(targets, m[1])
	}
	return targets
}

// TestCommandsParse runs every command of the pages with a configuration file that is not there: what the parser does
// not understand says Try, everything else is stopped by the file.
func TestCommandsParse(t *testing.T) {
	binary := build(t)
	targets := makeTargets(t)
	ran := 0
	for _, page := range pages {
		for _, block := range blocks(read(t, page), "console") {
			for line := range strings.Lines(block) {
				words := strings.Fields(strings.TrimPrefix(line, "$ "))
				if !strings.HasPrefix(line, "$ ") || len(words) == 0 {
					t.Errorf("%s: not a command: %q", page, line)
					continue
				}
				switch name := filepath.Base(words[0]); name {
				case "make":
					if len(words) < 2 || !slices.Contains(targets, words[1]) {
						t.Errorf("%s: no such target: %s", page, line)
					}
				case "pgbaton", "before_stop", "on_role_change":
					cmd := exec.Command(binary, words[1:]...)
					cmd.Args[0] = words[0]
					if writes := slices.Contains(words, "install") || slices.Contains(words, "init"); writes {
						cmd.Args = append(cmd.Args, "--dry-run")
					}
					cmd.Env = []string{"PGBATON_CONFIG=" + filepath.Join(t.TempDir(), "none.yaml")}
					out, err := cmd.CombinedOutput()
					ran++
					if strings.Contains(string(out), "Try \"") ||
						err == nil && !slices.ContainsFunc([]string{"version", "install", "init"}, func(s string) bool { return slices.Contains(words, s) }) {
						t.Errorf("%s: %s%s", page, line, out)
					}
				case "install": // the system's own: packaging/installed runs it
				case "go":
					checkTestFlags(t, page, words)
				default:
					if page == apiPage {
						continue // TestAPIExamples runs it
					}
					t.Errorf("%s: this test does not know %s", page, line)
				}
			}
		}
	}
	if ran < 8 {
		t.Errorf("only %d commands were found", ran)
	}
}

func checkTestFlags(t *testing.T, page string, words []string) {
	t.Helper()
	fixture := read(t, "e2e/fixture_test.go")
	for i, word := range words {
		if slices.Contains([]string{"-suites", "-full", "-logs"}, word) && !strings.Contains(fixture, `"`+word[1:]+`"`) {
			t.Errorf("%s: e2e has no flag %s", page, word)
		}
		if word == "-run" && !strings.Contains(testFunctions(t), " "+words[i+1]+" ") {
			t.Errorf("%s: no test %s", page, words[i+1])
		}
	}
}

// testFunctions are the names of the tests of e2e, with spaces around each.
func testFunctions(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "e2e", "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in e2e: %v", err)
	}
	return namesOfTests(t, files)
}

func namesOfTests(t *testing.T, files []string) string {
	t.Helper()
	names := " "
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test[A-Z]\w*)\(t `).FindAllStringSubmatch(string(text), -1) {
			names += m[1] + " "
		}
	}
	return names
}

// TestNames follows the names in the text: tests, targets, files, flags.
func TestNames(t *testing.T) {
	targets, tests, all := makeTargets(t), testFunctions(t), allTestFunctions(t)
	help := ""
	binary := build(t)
	for _, command := range []string{"status", "check", "pause", "install", "reload", "serve", "switchover", "restart", "init"} {
		out, err := exec.Command(binary, command, "--help").Output()
		if err != nil {
			t.Fatal(err)
		}
		help += string(out)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	made := []string{"dist", "demo-report", "bench-report"} // by make
	for _, page := range pages {
		for _, name := range inline(read(t, page)) {
			first, _, isPath := strings.Cut(name, "/")
			switch {
			case regexp.MustCompile(`^Test[A-Z]\w*$`).MatchString(name):
				if page == securityPage && !strings.Contains(all, " "+name+" ") {
					t.Errorf("%s: no test %s", page, name)
				}
				if page != securityPage && !strings.Contains(tests, " "+name+" ") {
					t.Errorf("%s: no test %s in e2e", page, name)
				}
			case strings.HasPrefix(name, "make "):
				if target := strings.Fields(name)[1]; !slices.Contains(targets, target) {
					t.Errorf("%s: no target %s", page, target)
				}
			case strings.HasPrefix(name, "--"):
				if flag := strings.Fields(name)[0]; !regexp.MustCompile(regexp.QuoteMeta(flag) + `\b`).MatchString(help) {
					t.Errorf("%s: no flag %s", page, flag)
				}
			case isPath && !slices.Contains(made, first) && slices.ContainsFunc(entries,
				func(e os.DirEntry) bool { return e.Name() == first }):
				if _, err := os.Stat(filepath.Join(root, name)); err != nil {
					t.Errorf("%s: %v", page, err)
				}
			}
		}
	}
	// And none is left out of the README's table.
	readme := read(t, "README.md")
	for _, name := range strings.Fields(tests) {
		if name != "TestMain" && !strings.Contains(readme, "`"+name+"`") {
			t.Errorf("README.md: e2e has %s, and it is in no table", name)
		}
	}
}

func TestLinks(t *testing.T) {
	for _, page := range pages {
		for _, m := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(fence.ReplaceAllString(read(t, page), ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s: %v", page, err)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(read(t, target)), anchor) {
				t.Errorf("%s: %s has no heading #%s", page, target, anchor)
			}
		}
	}
}

func anchors(text string) []string {
	var found []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		plain := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		found = append(found, strings.ReplaceAll(plain, " ", "-"))
	}
	return found
}

func TestYAML(t *testing.T) {
	ours, patronis := 0, 0
	for _, page := range pages {
		for _, block := range blocks(read(t, page), "yaml") {
			switch title, _, _ := strings.Cut(block, "\n"); title {
			case "# pgbaton.yaml":
				ours++
				if _, err := load(t, block); err != nil {
					t.Errorf("%s: %v", page, err)
				}
			case "# Patroni":
				patronis++
				checkPatroni(t, page, block)
			default:
				t.Errorf("%s: whose YAML is this? %q", page, title)
			}
		}
	}
	if ours < 2 || patronis < 1 {
		t.Errorf("found %d blocks of pgbaton.yaml, %d of Patroni", ours, patronis)
	}
}

// load reads a text as pgbaton.yaml in a folder that has the password files it names.
func load(t *testing.T, text string) (*config.Config, error) {
	t.Helper()
	dir := t.TempDir()
	for _, m := range regexp.MustCompile(`password_file: (\S+)`).FindAllStringSubmatch(text, -1) {
		if err := os.WriteFile(filepath.Join(dir, m[1]), []byte("not a real one\n"), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "pgbaton.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Load(config.Options{
		File: file, Executable: "/nonexistent/pgbaton", Argv0: "pgbaton",
		Set:       []config.Setting{{Key: "state_dir", Value: filepath.Join(dir, "state"), Source: "--state-dir"}},
		LookupEnv: func(string) (string, bool) { return "", false },
	})
}

func checkPatroni(t *testing.T, page, block string) {
	t.Helper()
	var patroni struct {
		PostgreSQL struct {
			BeforeStop string            `yaml:"before_stop"`
			Callbacks  map[string]string `yaml:"callbacks"`
		} `yaml:"postgresql"`
	}
	decoder := yaml.NewDecoder(strings.NewReader(block))
	decoder.KnownFields(true)
	if err := decoder.Decode(&patroni); err != nil {
		t.Errorf("%s: %v", page, err)
		return
	}
	if patroni.PostgreSQL.BeforeStop != "/callbacks/before_stop" {
		t.Errorf("%s: before_stop is %q", page, patroni.PostgreSQL.BeforeStop)
	}
	for _, name := range []string{"on_role_change", "on_start", "on_restart", "on_stop"} {
		if got := patroni.PostgreSQL.Callbacks[name]; got != "/callbacks/on_role_change" {
			t.Errorf("%s: callbacks.%s is %q", page, name, got)
		}
	}
	if n := len(patroni.PostgreSQL.Callbacks); n != 4 {
		t.Errorf("%s: %d callbacks", page, n)
	}
}

// TestConfigurationKeys: the table has every key, with the variable and flag that set it, and the default that counts.
func TestConfigurationKeys(t *testing.T) {
	c, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	defaults := map[string]string{
		"patroni.url":           c.Patroni.URL,
		"postgres":              c.Postgres,
		"poolers[].resolve":     "all",
		"poolers[].databases":   config.Databases{}.String(),
		"pause.budget":          c.Pause.Budget.String(),
		"pause.attempt":         c.Pause.Attempt.String(),
		"pause.on_timeout":      c.Pause.OnTimeout,
		"pause.lease":           c.Pause.Lease.String(),
		"pause.shutdown_budget": c.Pause.ShutdownBudget.String(),
		"pause.stop_server":     map[bool]string{true: "auto", false: "off"}[c.Pause.StopServer],
		"resume.timeout":        c.Resume.Timeout.String(),
		"serve.listen":          c.Serve.Listen,
		"serve.client_scope":    c.Serve.ClientScope,
		"serve.grace":           c.Serve.Grace.String(),
		"serve.reconcile":       c.Serve.Reconcile,
		"state_dir":             "/run/pgbaton",
	}
	help, err := exec.Command(build(t), "status", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	flagOf := map[string]string{}
	for _, entry := range regexp.MustCompile(`\s--`).Split(string(help), -1) {
		flag, _, _ := strings.Cut(entry, "=")
		if m := regexp.MustCompile(`\(\$(PGBATON_[A-Z_]+)\)`).FindStringSubmatch(entry); m != nil {
			flagOf[m[1]] = "--" + flag
		}
	}
	var listed []string
	for _, row := range rows(t, read(t, "docs/configuration.md"), "Keys") {
		key, isKey := code(row[0])
		if !isKey {
			continue
		}
		if strings.HasPrefix(key, "PGBATON_") {
			if flag, has := code(row[1]); flagOf[key] != flag {
				t.Errorf("%s: flag %q (%v), the program says %q", key, flag, has, flagOf[key])
			}
			continue
		}
		listed = append(listed, key)
		shown, _ := code(row[1])
		if want := defaults[key]; want != shown && !equalDuration(want, shown) {
			t.Errorf("%s: default %q, the program's is %q", key, shown, want)
		}
		variable, _ := code(row[3])
		want := config.EnvName(key)
		switch {
		case key == "poolers":
			want = "PGBATON_POOLER"
		case strings.HasPrefix(key, "poolers[]"):
			want = ""
		}
		if variable != want {
			t.Errorf("%s: variable %q, want %q", key, variable, want)
		}
		if flag, _ := code(row[4]); flag != flagOf[variable] {
			t.Errorf("%s: flag %q, the program says %q", key, flag, flagOf[variable])
		}
	}
	keys := config.Keys()
	slices.Sort(keys)
	slices.Sort(listed)
	if !slices.Equal(keys, listed) {
		t.Errorf("the table has\n%v\nthe program\n%v", listed, keys)
	}
}

// equalDuration: time.Duration writes a minute as 1m0s.
func equalDuration(a, b string) bool {
	x, err1 := config.ParseDuration("", a)
	y, err2 := config.ParseDuration("", b)
	return err1 == nil && err2 == nil && x == y
}

// TestDecisionTable: each sentence of the table is one of decide.go's, and each of those is in the table.
func TestDecisionTable(t *testing.T) {
	sentences := texts(t, "hooks/decide.go")
	var phrases []string
	for _, row := range rows(t, read(t, "docs/how-it-works.md"), "The decision") {
		if phrase, ok := code(row[len(row)-1]); ok {
			phrases = append(phrases, phrase)
			if !slices.ContainsFunc(sentences, func(s string) bool { return strings.Contains(s, phrase) }) {
				t.Errorf("hooks/decide.go does not say %q", phrase)
			}
		}
	}
	for _, s := range sentences {
		if strings.Count(s, " ") < 4 {
			continue // a word of a sentence, an import
		}
		if !slices.ContainsFunc(phrases, func(phrase string) bool { return strings.Contains(s, phrase) }) {
			t.Errorf("hooks/decide.go says %q, and no line of the table does", s)
		}
	}
}

// texts are the string literals of a Go file.
func texts(t *testing.T, name string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if s, err := strconv.Unquote(literal.Value); err == nil {
				found = append(found, s)
			}
		}
		return true
	})
	return found
}

// TestLogLines: what the page shows as messages are messages of the program.
func TestLogLines(t *testing.T) {
	var said []*regexp.Regexp
	for _, pattern := range []string{"hooks/*.go", "pause/*.go", "reload/*.go", "health/*.go", "member/*.go", "state/*.go",
		"cmd/pgbaton/*.go"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			name, err := filepath.Rel(root, file)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range texts(t, name) {
				s = regexp.MustCompile(`%[sdvq]`).ReplaceAllString(regexp.QuoteMeta(s), `.+`)
				said = append(said, regexp.MustCompile("^"+s))
			}
		}
	}
	page := read(t, "docs/how-it-works.md")
	var shown []string
	for _, block := range blocks(page, "log") {
		for _, m := range regexp.MustCompile(`(?:msg|decision)=(?:"([^"]*)"|(\S+))`).FindAllStringSubmatch(block, -1) {
			shown = append(shown, m[1]+m[2])
		}
	}
	for _, row := range rows(t, page, "What the logs say") {
		if message, ok := code(row[0]); ok {
			shown = append(shown, message)
		}
	}
	if len(shown) < 10 {
		t.Fatalf("only %d messages were found", len(shown))
	}
	for _, message := range shown {
		if !slices.ContainsFunc(
			said,
			func(r *regexp.Regexp) bool { return r.String() != "^" && len(r.String()) > 5 && r.MatchString(message) },
		) &&
			!strings.Contains(fmt.Sprint(said), "^"+regexp.QuoteMeta(message)) {
			t.Errorf("no hook says %q", message)
		}
	}
}

// TestSampleReport: the README's report is one that the demo has made.
func TestSampleReport(t *testing.T) {
	report := read(t, "e2e/demo/testdata/report.txt")
	for _, block := range blocks(read(t, "README.md"), "text") {
		if !strings.Contains(report, block) {
			t.Errorf("not in the demo's report:\n%s", block)
		}
	}
}
