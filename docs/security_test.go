package docs_test

import (
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const securityPage = "docs/security.md"

// TestPromises: what the page on security promises is held by a test, at the least by one of that name.
func TestPromises(t *testing.T) {
	held := 0
	for _, row := range rows(t, read(t, securityPage), "What is promised") {
		if len(row) != 2 {
			t.Errorf("%s: %d cells: %q", securityPage, len(row), row)
			continue
		}
		if row[0] == "promise" {
			continue
		}
		if !regexp.MustCompile("^`Test[A-Z]\\w*`(, `Test[A-Z]\\w*`)*$").MatchString(row[1]) {
			t.Errorf("%s: no test of %q, but %q", securityPage, row[0], row[1])
		}
		held++
	}
	if held < 20 {
		t.Errorf("%s: only %d promises were found", securityPage, held)
	}
}

// allTestFunctions are those of every package, in the same form.
func allTestFunctions(t *testing.T) string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return namesOfTests(t, files)
}
