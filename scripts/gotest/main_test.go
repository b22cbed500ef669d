package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const events = `{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA/x","Output":"    a_test.go:1: not well\n"}
{"Action":"output","Package":"p","Test":"TestA/x","Output":"    --- FAIL: TestA/x (2.50s)\n"}
{"Action":"fail","Package":"p","Test":"TestA/x","Elapsed":2.5}
{"Action":"output","Package":"p","Test":"TestA","Output":"--- FAIL: TestA (3.00s)\n"}
{"Action":"fail","Package":"p","Test":"TestA","Elapsed":3}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:1: all is well\n"}
{"Action":"pass","Package":"p","Test":"TestB","Elapsed":9}
{"Action":"output","Package":"p","Output":"FAIL\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t12.1s\n"}
{"Action":"fail","Package":"p","Elapsed":12.1}
{"Action":"output","Package":"q","Output":"PASS\n"}
{"Action":"output","Package":"q","Output":"ok  \tq\t0.1s\n"}
# q/bad
{"Action":"skip","Package":"q","Test":"TestA"}
`

func TestRelayAndList(t *testing.T) {
	var shown, kept bytes.Buffer
	if err := relay(strings.NewReader(events), &shown, json.NewEncoder(&kept), false); err != nil {
		t.Fatal(err)
	}
	const want = `    a_test.go:1: not well
    --- FAIL: TestA/x (2.50s)
--- FAIL: TestA (3.00s)
FAIL
FAIL	p	12.1s
ok  	q	0.1s
# q/bad
`
	if shown.String() != want {
		t.Errorf("shown:\n%s\nwant:\n%s", &shown, want)
	}
	shown.Reset()
	err := relay(strings.NewReader(events), &shown, json.NewEncoder(&bytes.Buffer{}), true)
	if err != nil || !strings.Contains(shown.String(), "b_test.go:1: all is well\n") {
		t.Errorf("with -v: %v\n%s", err, &shown)
	}
	const last = `What failed said:
    a_test.go:1: not well
    --- FAIL: TestA/x (2.50s)
--- FAIL: TestA (3.00s)
`
	if !strings.HasSuffix(shown.String(), last) {
		t.Errorf("with -v, at the end:\n%s\nwant:\n%s", &shown, last)
	}

	times := filepath.Join(t.TempDir(), "times")
	if err := os.WriteFile(times, kept.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var listed bytes.Buffer
	if err := list(times, 2, &listed); err != nil {
		t.Fatal(err)
	}
	if want := "The slowest of 3 tests:\n    9.0 s  pass  p TestB\n    2.5 s  fail  p TestA/x\n"; listed.String() != want {
		t.Errorf("listed:\n%s\nwant:\n%s", &listed, want)
	}
}

// TestExitCode: who fails must fail here, too.
func TestExitCode(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module m\n\ngo 1.26\n")
	for content, want := range map[string]int{
		"package m\n\nimport \"testing\"\n\nfunc TestX(t *testing.T) {}\n":             0,
		"package m\n\nimport \"testing\"\n\nfunc TestX(t *testing.T) { t.Fatal(1) }\n": 1,
		"package m\n\nfunc broken() { x }\n":                                           1,
	} {
		write("m_test.go", content)
		if code, err := test(filepath.Join(dir, "times"), []string{"-race", "-count=1", "."}); err != nil || code != want {
			t.Errorf("exit code %d, %v, want %d:\n%s", code, err, want, content)
		}
	}
}
