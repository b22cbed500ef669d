package docs_test

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/pgbaton/pgbaton/"

// layers are the product's packages, the lowest first. A package imports only what stands in a layer below its own.
var layers = [][]string{
	{"file", "process", "peer"},
	{"config/yamlfile"},
	{"configversion", "config", "pgb/pgbini"},
	{"pgb", "patroni", "postgres"},
	{"api"},
	{"state"},
	{"member"},
	{"follow", "routing"},
	{"pause"},
	{"reload", "plan"},
	{"health"},
	{"hooks"},
	{"maintenance", "setup"},
	{"operation"},
	{"httpapi"},
	{"cmd/pgbaton/clidoc"},
	{"cmd/pgbaton"},
}

// notProduct are folders whose packages may import anything of the product, and which it never imports.
var notProduct = []string{"e2e", "manifests", "docs", "scripts", "packaging", "member/membertest"}

func layerOf(folder string) int {
	return slices.IndexFunc(layers, func(layer []string) bool { return slices.Contains(layer, folder) })
}

func isProduct(folder string) bool {
	return !slices.ContainsFunc(notProduct, func(other string) bool { return folder == other || strings.HasPrefix(folder, other+"/") })
}

// goFiles calls do for every Go file of the product, tests left out, with its folder.
func goFiles(t *testing.T, do func(folder, path string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && entry.Name() != "." && entry.Name() != "..":
			return fs.SkipDir
		case entry.IsDir(), filepath.Ext(path) != ".go", strings.HasSuffix(path, "_test.go"), !isProduct(folder):
			return nil
		}
		do(folder, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestImportsPointDown: the layout is a house of layers, and no package imports one of its own layer or of one above it.
func TestImportsPointDown(t *testing.T) {
	goFiles(t, func(folder, path string) {
		own := layerOf(folder)
		if own < 0 {
			t.Errorf("%s: package %s stands in no layer: name it in the list of docs/layout_test.go", path, folder)
			return
		}
		source, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range source.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if to, ours := strings.CutPrefix(name, module); ours && (layerOf(to) < 0 || layerOf(to) >= own) {
				t.Errorf("%s: imports %s, which does not stand below %s", path, to, folder)
			}
		}
	})
}

const (
	maxFileLines = 400
	maxColumns   = 140 // a tab counts as four
)

// tagged is a field with a tag, which cannot be broken.
var tagged = regexp.MustCompile("^\\s*\\w+.*`\\w+:\"")

// TestSizes: a file that needs a map to be read is split, and a line fits a screen.
func TestSizes(t *testing.T) {
	goFiles(t, func(_, path string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.Split(text, []byte("\n"))
		if len(lines)-1 > maxFileLines {
			t.Errorf("%s has %d lines, at most %d are wanted", path, len(lines)-1, maxFileLines)
		}
		for i, line := range lines {
			if width := len([]rune(string(line))) + 3*bytes.Count(line, []byte("\t")); width > maxColumns && !tagged.Match(line) {
				t.Errorf("%s:%d: %d columns, at most %d are wanted", path, i+1, width, maxColumns)
			}
		}
	})
}
