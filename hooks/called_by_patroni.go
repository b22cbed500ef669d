package hooks

import (
	"os"
	"strconv"
	"strings"
)

// calledByPatroni reports whether Patroni is an ancestor of this process, through shells or not. Where the REST API does
// not answer, this tells a stop by Patroni from a person who tries the guard by hand.
func calledByPatroni() bool {
	pid := os.Getppid()
	for range 8 {
		if pid < 1 {
			return false
		}
		cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if err != nil {
			return false
		}
		if isPatroni(strings.Split(string(cmdline), "\x00")) {
			return true
		}
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			return false
		}
		// The name stands in parentheses and may hold anything; state and parent follow the last one.
		_, rest, ok := cutLast(string(stat), ") ")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 2 {
			return false
		}
		if pid, err = strconv.Atoi(fields[1]); err != nil {
			return false
		}
	}
	return false
}

// isPatroni knows "python3 /usr/bin/patroni FILE", "python3 -m patroni FILE", "/opt/…/patroni FILE" and "patroni.py"
// (Debian, Spilo, StackGres).
func isPatroni(argv []string) bool {
	for i, arg := range argv {
		base := arg[strings.LastIndexByte(arg, '/')+1:]
		switch {
		case i > 3:
			return false
		case base == "patroni" || base == "patroni.py":
			return true
		case i == 0 && !strings.HasPrefix(base, "python"):
			return false // "sudo -u patroni bash", "tail -f /var/log/patroni"
		}
	}
	return false
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
