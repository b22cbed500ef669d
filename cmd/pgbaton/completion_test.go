package main

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/pgbaton/pgbaton/cmd/pgbaton/clidoc"
)

// model is the command line as the parser has it.
func model(t *testing.T) *kong.Application {
	t.Helper()
	parser, err := kong.New(&cli{}, options()...)
	if err != nil {
		t.Fatal(err)
	}
	return parser.Model
}

func shown(app *kong.Application) []*kong.Node {
	return slices.DeleteFunc(slices.Clone(app.Children), func(n *kong.Node) bool { return n.Hidden })
}

// typed are lines with a Tab in them, and the arguments that the program then gets: each command, each of its own flags, each value that is
// known, and files. A flag is typed up to where no other can be meant.
func typed(app *kong.Application) map[string]string {
	lines := map[string]string{
		"st\t":                            "status",
		"--log-level\tdeb\tstatus":        "--log-level debug status",
		"--log-f\tjs\tstatus --ou\tj\t":   "--log-format json status --output json",
		"--log-format=js\tstatus":         "--log-format=json status",
		"status --config ./pgb\t":         "status --config ./pgbaton.yaml",
		"install ./call\t":                "install ./callbacks/",
		"status --state-dir ./call\t":     "status --state-dir ./callbacks/",
		"pause --pause-on-timeout term\t": "pause --pause-on-timeout terminate",
		"on-role-change on_res\tpr\td":    "on-role-change on_restart primary d",
	}
	for _, node := range shown(app) {
		var all []string
		for _, f := range slices.Concat(app.Flags, node.Flags) {
			all = append(all, "--"+f.Name)
		}
		for _, f := range node.Flags {
			flag := "--" + f.Name
			short := unique(flag, all)
			if short == "" {
				continue // the beginning of another, and typed in full
			}
			lines[node.Name+" "+short+"\t"] = node.Name + " " + flag
			if f.Enum != "" {
				for _, value := range f.EnumSlice() {
					lines[node.Name+" "+flag+" "+unique(value, f.EnumSlice())+"\t"] = node.Name + " " + flag + " " + value
				}
			}
		}
		for _, v := range node.Positional {
			if v.Enum == "" {
				continue
			}
			for _, value := range v.EnumSlice() {
				if short := unique(value, v.EnumSlice()); short != "" {
					lines[node.Name+" "+short+"\t"] = node.Name + " " + value
				}
			}
		}
	}
	return lines
}

// unique is the shortest beginning of a word that is none of another's.
func unique(word string, all []string) string {
	for n := 1; n <= len(word); n++ {
		others := slices.IndexFunc(all, func(other string) bool { return other != word && strings.HasPrefix(other, word[:n]) })
		if others < 0 {
			return word[:n]
		}
	}
	return ""
}

// TestCompletion types into the three shells, on a terminal, and looks at what the program is then called with.
func TestCompletion(t *testing.T) {
	app := model(t)
	for shell, start := range map[string][]string{
		"bash": {"bash", "--noprofile", "--norc", "-i"},
		"zsh":  {"zsh", "-f", "-i"},
		"fish": {"fish", "--no-config", "-i"},
	} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(shell); err != nil {
				t.Fatalf("%v: scripts/tools.sh installs it", err)
			}
			dir := t.TempDir()
			write := func(name, text string) {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			got := filepath.Join(dir, "got")
			if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(dir, "callbacks"), 0o755); err != nil {
				t.Fatal(err)
			}
			write("pgbaton.yaml", "")
			write("bin/pgbaton", "#!/bin/sh\necho \"$*\" >>"+got+"\n")
			write("script", clidoc.Completion(app, shell))

			cmd := exec.Command(start[0], start[1:]...)
			cmd.Dir = dir
			cmd.Env = []string{"PATH=" + dir + "/bin:/usr/local/bin:/usr/bin:/bin", "HOME=" + dir, "TERM=xterm", "LANG=C.UTF-8"}
			term := openTerminal(t, 200, cmd)
			term.send(map[string]string{
				"bash": "bind 'set enable-bracketed-paste off'; . ./script; PS1='rea''dy> '\r",
				"zsh":  "unset zle_bracketed_paste; autoload -U compinit; compinit -u -D; . ./script; PS1='rea''dy> '\r",
				"fish": "source ./script; function fish_prompt; echo -n rea; echo -n 'dy> '; end\r",
			}[shell])
			lines := typed(app)
			want := []string{}
			for _, line := range slices.Sorted(maps.Keys(lines)) {
				term.await("ready> ")
				term.forget()
				term.send("pgbaton " + line + "\r")
				want = append(want, lines[line])
			}
			term.await("ready> ")
			t.Logf("%d lines in %s", len(lines), shell)
			text, err := os.ReadFile(got)
			if err != nil {
				t.Fatal(err)
			}
			for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
				// zsh puts the value behind =, and takes back the / of a folder when the line ends.
				same := strings.NewReplacer("=", " ", "callbacks/", "callbacks")
				if line = strings.TrimSpace(line); i >= len(want) || same.Replace(line) != same.Replace(want[i]) {
					t.Errorf("%q became %q", slices.Sorted(maps.Keys(lines))[i], line)
				}
			}
		})
	}
}

// TestPagesAgree walks every command: the man pages, the completions and the README's table have it with all its arguments and flags, and
// the README has no command more.
func TestPagesAgree(t *testing.T) {
	app := model(t)
	pages := clidoc.Man(app, "v1", manSections()...)
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `pgbaton (\\w+)([^`]*)` \\| ").FindAllStringSubmatch(string(readme), -1) {
		listed[m[1]] = strings.TrimSpace(strings.ReplaceAll(m[2], `\|`, "|"))
	}
	plain := strings.NewReplacer(`\-`, "-", `\fB`, "", `\fI`, "", `\fR`, "")
	main := plain.Replace(pages["pgbaton.1"])
	for _, node := range shown(app) {
		arguments, ok := listed[node.Name]
		if !ok {
			t.Errorf("README.md: the table of commands has no %s", node.Name)
		}
		delete(listed, node.Name)
		page := plain.Replace(pages["pgbaton-"+node.Name+".1"])
		if page == "" || !strings.Contains(main, "\npgbaton "+node.Name) {
			t.Errorf("%s has no man page, or pgbaton(1) does not name it", node.Name)
		}
		for _, v := range node.Positional {
			name := strings.ToUpper(v.Name)
			if !strings.Contains(page, "\n.TP\n"+name+"\n") {
				t.Errorf("pgbaton-%s(1) does not explain %s", node.Name, name)
			}
			if !strings.Contains(arguments, name) && !strings.Contains(arguments, strings.Join(v.EnumSlice(), "|")) {
				t.Errorf("README.md: the table of commands has %q of %s, and the program has %s", arguments, node.Name, name)
			}
		}
		for _, f := range node.Flags {
			if !strings.Contains(page, "\n.TP\n--"+f.Name) || f.Help == "" {
				t.Errorf("pgbaton-%s(1) does not explain --%s", node.Name, f.Name)
			}
		}
	}
	for _, f := range app.Flags {
		if !strings.Contains(main, "\n.TP\n--"+f.Name) {
			t.Errorf("pgbaton(1) does not explain --%s", f.Name)
		}
	}
	if len(listed) > 0 {
		t.Errorf("README.md has commands that the program has not: %v", listed)
	}
	for name, page := range pages {
		for line := range strings.Lines(page) {
			if request := strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'"); request &&
				!regexp.MustCompile(`^\.(TH|SH|TP|PP|br)\b`).MatchString(line) {
				t.Errorf("%s: troff would act on %q", name, line)
			}
		}
	}
}

// TestCompletionCommand: the scripts that the program prints are the ones that the packages have.
func TestCompletionCommand(t *testing.T) {
	for _, shell := range clidoc.Shells() {
		var out, problems bytes.Buffer
		if code := run([]string{"pgbaton", "completion", shell}, nil, &out, &problems); code != 0 || problems.Len() > 0 {
			t.Fatalf("exit code %d, %s", code, problems.String())
		}
		dir := t.TempDir()
		if code := run([]string{"pgbaton", "_pages", dir}, nil, &problems, &problems); code != 0 {
			t.Fatalf("exit code %d, %s", code, problems.String())
		}
		packed, err := os.ReadFile(filepath.Join(dir, "completion", "pgbaton."+shell))
		if err != nil || string(packed) != out.String() {
			t.Errorf("%s: %v, or the texts differ", shell, err)
		}
		if strings.Contains(out.String(), "_keep") || strings.Contains(out.String(), "_pages") {
			t.Errorf("%s: it proposes what people do not run", shell)
		}
	}
}
