package single

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"testing"
)

// Python runs a script with the Python of a suite's root, which has Patroni and PyYAML. The script reads in as JSON on its standard
// input and prints JSON, which is put into out. It needs root.
func Python(t testing.TB, suite, script string, in, out any) {
	t.Helper()
	Need(t)
	root, err := rootOf(t.Context(), suite)
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "chroot", root, "/usr/bin/python3", "-B", "-c", script)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), &stderr
	stdout, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	if err := json.Unmarshal(stdout, out); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
}
