package patroni_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgbaton/pgbaton/patroni"
)

func TestWhatIsAPatroni(t *testing.T) {
	const no = "no"
	for line, want := range map[string]string{ // what follows the name
		"/usr/bin/python3 /usr/bin/patroni /etc/patroni/config.yml": "/etc/patroni/config.yml", // Debian
		"/usr/bin/python3 /usr/local/bin/patroni /p.yml":            "/p.yml",                  // Spilo
		"/usr/bin/python3 -u /usr/local/bin/patroni /p.yml":         "/p.yml",
		"/usr/bin/python3.11 /usr/bin/patroni":                      "", // StackGres: by its environment
		"/opt/patroni/bin/patroni /p.yml":                           "/p.yml",
		"python3 -m patroni /etc/patroni.yml":                       "/etc/patroni.yml",
		"python3 -I -W ignore -X dev -m patroni a b":                "a b",
		"python patroni.py postgres0.yml":                           "postgres0.yml",
		"pypy3 /usr/bin/patroni /p.yml":                             "/p.yml",
		"patroni":                                                   "",
		"":                                                          no,
		"/usr/bin/python3 /usr/bin/patronictl list":                 no,
		"/usr/bin/python3 /usr/bin/patroni_aws":                     no,
		"/usr/bin/python3 -m patroni.ctl list":                      no,
		"/usr/bin/python3 /usr/bin/other patroni":                   no,
		"/usr/bin/python3 -c patroni patroni":                       no,
		"/usr/bin/python3 - patroni":                                no,
		"/usr/bin/python3 -m":                                       no,
		"/usr/bin/python3":                                          no,
		"/bin/bash /callbacks/before_stop":                          no,
		"bash":                                                      no,
		"/sbin/init":                                                no,
		"vim /etc/patroni/patroni.yml":                              no,
		// A person whose user, or whose file, has the name.
		"su - patroni":               no,
		"sudo -u patroni bash":       no,
		"sudo patroni /p.yml":        no,
		"tail -f /var/log/patroni":   no,
		"runuser -u patroni -- bash": no,
	} {
		rest, is := patroni.Arguments(strings.Split(line, " "))
		got := no
		if is {
			got = strings.Join(rest, " ")
		}
		if got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	if _, is := patroni.Arguments(nil); is {
		t.Error("a process of the kernel")
	}
}

// sayAncestor makes the test binary a program below others, which says whether Patroni is above it.
const sayAncestor = "PGBATON_TEST_ANCESTOR"

// The kernel's own view: the process, a shell, perhaps another one, and above them a program called patroni, or one that is not.
func TestIsAncestor(t *testing.T) {
	if patroni.IsAncestor() {
		t.Fatal("the test is not called by Patroni")
	}
	dir := t.TempDir()
	// Shells that stay until what they have started has ended; the kernel shows them by the path of the link.
	link := func(name string) string {
		sh, err := exec.LookPath("sh")
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.Symlink(sh, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	program, python, other := link("patroni"), link("python3"), link("tail")
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte(`"$SELF"; exit $?`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	patroniScript := filepath.Join(dir, "patroni.py")
	if err := os.Symlink(script, patroniScript); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		argv []string
		want bool
	}{
		"a program":             {[]string{program, script}, true},
		"a Python":              {[]string{python, patroniScript, "/p.yml"}, true},
		"a shell in between":    {[]string{program, "-c", "sh " + script + "; exit $?"}, true},
		"another script":        {[]string{python, script, "patroni"}, false},
		"only among the words":  {[]string{other, "-c", `"$SELF"; exit $?`, "patroni"}, false},
		"a name that goes on":   {[]string{link("patronictl"), script}, false},
		"a name in parentheses": {[]string{link(") S 1 ("), "-c", program + " " + script + "; exit $?"}, true},
		"below such a name":     {[]string{program, "-c", "'" + link("a) R 1 1") + "' " + script + "; exit $?"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), c.argv[0], c.argv[1:]...)
			cmd.Env = slices.Concat(os.Environ(), []string{sayAncestor + "=1", "SELF=" + os.Args[0]})
			out, err := cmd.CombinedOutput()
			if err != nil || strings.TrimSpace(string(out)) != fmt.Sprint(c.want) {
				t.Errorf("%s, %v; want %v", out, err, c.want)
			}
		})
	}
}
