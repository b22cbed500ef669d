package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryCommand walks the program's own list: each command has a row in the README, a man page with its flags, and stands in the
// completion of each shell; and none of these has another.
func TestEveryCommand(t *testing.T) {
	binary := build(t)
	say := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(binary, args...).Output()
		if err != nil {
			t.Fatalf("pgbaton %v: %v", args, err)
		}
		return string(out)
	}
	_, list, _ := strings.Cut(say("--help"), "\nCommands:\n")
	var commands []string
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z_]+) `).FindAllStringSubmatch(list, -1) {
		commands = append(commands, m[1])
	}
	if len(commands) < 10 {
		t.Fatalf("only %d commands: %q", len(commands), list)
	}
	same := func(what string, got []string) {
		t.Helper()
		slices.Sort(got)
		want := slices.Sorted(slices.Values(commands))
		if !slices.Equal(slices.Compact(got), want) {
			t.Errorf("%s has the commands\n%v\nthe program\n%v", what, got, want)
		}
	}

	_, section, _ := strings.Cut(read(t, "README.md"), "\n## Commands\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var rowsOf []string
	for _, m := range regexp.MustCompile("(?m)^\\| `pgbaton ([a-z_]+)").FindAllStringSubmatch(section, -1) {
		rowsOf = append(rowsOf, m[1])
	}
	same("README.md", rowsOf)

	dir := t.TempDir()
	say("_pages", dir)
	pages, err := filepath.Glob(filepath.Join(dir, "man1", "pgbaton-*.1"))
	if err != nil {
		t.Fatal(err)
	}
	var manuals []string
	for _, page := range pages {
		manuals = append(manuals, strings.TrimSuffix(strings.TrimPrefix(filepath.Base(page), "pgbaton-"), ".1"))
	}
	same("the manual", manuals)

	flag := regexp.MustCompile(`(?m)^ +(?:-\w, )?--([a-z-]+)`)
	shells := map[string]string{}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		shells[shell] = say("completion", shell)
	}
	for _, command := range commands {
		manual, err := os.ReadFile(filepath.Join(dir, "man1", "pgbaton-"+command+".1"))
		if err != nil {
			continue // said above
		}
		own, _, _ := strings.Cut(say(command, "--help"), "\nConfiguration ")
		for _, m := range flag.FindAllStringSubmatch(own, -1) {
			if name := strings.ReplaceAll(m[1], "-", `\-`); !strings.Contains(string(manual), name) && !strings.Contains(string(manual), m[1]) {
				t.Errorf("pgbaton-%s(1) has no --%s", command, m[1])
			}
			for shell, script := range shells {
				if !strings.Contains(script, m[1]) {
					t.Errorf("the completion for %s has no --%s of %s", shell, m[1], command)
				}
			}
		}
		for shell, script := range shells {
			if !regexp.MustCompile(`\b` + command + `\b`).MatchString(script) {
				t.Errorf("the completion for %s has no %s", shell, command)
			}
		}
	}
}
