// Package labroot finds the file systems that the tests' servers run in.
package labroot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// roots are those that were asked for: the script starts a dozen programs, and a test a dozen servers.
var roots = struct {
	sync.Mutex
	of map[string]string
}{of: map[string]string{}}

// Of returns the folder of a suite's root file system (trixie or sid), and makes it first where it is missing: that takes about two
// minutes. It stays the same as long as the process lives.
func Of(ctx context.Context, suite string) (string, error) {
	roots.Lock()
	defer roots.Unlock()
	if folder := roots.of[suite]; folder != "" {
		return folder, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	script := filepath.Join(dir, "scripts/lab-root.sh")
	for !exists(script) {
		if dir == "/" {
			return "", errors.New("scripts/lab-root.sh is in no folder above the working directory")
		}
		dir = filepath.Dir(dir)
		script = filepath.Join(dir, "scripts/lab-root.sh")
	}
	cmd := exec.CommandContext(ctx, script, suite)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", script, suite, err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	roots.of[suite] = lines[len(lines)-1]
	return roots.of[suite], nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// User returns the ids of a user in a root's own passwd.
func User(folder, name string) (uid, gid int, err error) {
	passwd, err := os.ReadFile(filepath.Join(folder, "etc/passwd"))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(passwd)) {
		if f := strings.Split(line, ":"); len(f) > 3 && f[0] == name {
			uid, err1 := strconv.Atoi(f[2])
			gid, err2 := strconv.Atoi(f[3])
			return uid, gid, errors.Join(err1, err2)
		}
	}
	return 0, 0, fmt.Errorf("no user %s in %s", name, folder)
}
