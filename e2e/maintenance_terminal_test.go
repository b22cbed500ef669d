package e2e_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// TestMaintenanceOnATerminal: the session that README.md shows, in a real terminal: the plan, the question, the lines that turn to done, and
// the summary. What differs from run to run (times, figures, who is who) is not compared.
func TestMaintenanceOnATerminal(t *testing.T) {
	oneSuite(t, "trixie", func(t *testing.T, suite string) {
		readme, err := os.ReadFile("../README.md")
		if err != nil {
			t.Fatal(err)
		}
		shown := regexp.MustCompile("(?s)```terminal\n\\$ pgbaton ([^\n]*)\n(.*?)```").FindStringSubmatch(string(readme))
		if shown == nil {
			t.Fatal("README.md shows no session")
		}
		c := start(t, lab.Options{Suite: suite}.Quick())
		c.used()
		l := c.load()
		replicas, err := c.Replicas(c.ctx)
		c.must(err)
		// script gives it a terminal of the kernel; the answer waits in it until the question is asked.
		r, err := replicas[0].Exec(c.ctx, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", "SHELL=/bin/sh"}, "sh", "-c",
			`echo y | script -qec "stty cols 200 rows 40; /callbacks/pgbaton `+shown[1]+`" /dev/null`)
		c.must(err)
		l.flowing(20)
		c.noErrors(l.stop())
		c.healthy()
		if r.ExitCode != 0 {
			t.Fatalf("exit code %d\n%s%s", r.ExitCode, r.Stdout, r.Stderr)
		}
		frames := regexp.MustCompile(`\x1b\[\d+A\x1b\[J`).Split(strings.ReplaceAll(r.Stdout, "\r", ""), -1)
		t.Logf("%d frames\n%s\n…\n%s\n…\n%s", len(frames), frames[0], frames[len(frames)/2], frames[len(frames)-1])
		const question = "Do it? [y/N] " // and what comes first below stands on the same line: script echoes the answer before
		got := strings.Split(strings.ReplaceAll(strings.Join(frames, "\n"), question, question+"y\n"), "\n")
		for i, line := range got {
			got[i] = alike(line)
		}
		for line := range strings.Lines(shown[2]) {
			if line = alike(line); line != "…" && !slices.Contains(got, line) {
				t.Errorf("not on the terminal: %q", line)
			}
		}
	})
}

// figures are what differs from run to run in a line of the session, and what stands for it.
var figures = []struct {
	what *regexp.Regexp
	by   string
}{
	{regexp.MustCompile("\x1b" + `\[[\d;]*m`), ""}, // colours
	{regexp.MustCompile(`\bm[123]\b`), "mN"},
	{regexp.MustCompile(`\btimeline \d+\b`), "timeline N"}, // the cluster may have been used before
	{regexp.MustCompile(`^(\[x\] \d +(?:restart|switchover) .*?) +[\d.hms]+ +done, .*$`), "$1 done"},
	{regexp.MustCompile(`^(\[>\] \d +(?:restart|switchover) .*?) +[\d.hms]+$`), "$1"},
	{regexp.MustCompile(`^(\d +(?:restart|switchover) .*?) +done +[\d.hms]+ .*  (\S.*)$`), "$1 done $2"},
	{regexp.MustCompile(`\b\d+ ?k?B\b`), "0 B"},
	{regexp.MustCompile(`, 0 B behind`), ""},
	{regexp.MustCompile(`(mN (leader running|replica streaming); ){3}`), "three members; "}, // by name, whoever of them leads
	{regexp.MustCompile(`[ \t]+`), " "},
}

// alike is a line without what differs from run to run.
func alike(line string) string {
	line = strings.TrimSpace(line)
	for _, f := range figures {
		line = f.what.ReplaceAllString(line, f.by)
	}
	return line
}
