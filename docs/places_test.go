package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPlaces: the README's table says of each case in e2e on which suites it runs and beside what, as the code has it.
func TestPlaces(t *testing.T) {
	said := map[string]string{}
	row := regexp.MustCompile("(?m)^\\|.*\\| `(Test[A-Za-z0-9]+)` \\| ([^|]+) \\|$")
	for _, m := range row.FindAllStringSubmatch(read(t, "README.md"), -1) {
		said[m[1]] = m[2]
	}
	files, err := filepath.Glob(filepath.Join(root, "e2e", "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(f.Name.Name, "Test") || f.Recv != nil {
				continue
			}
			if want := runsOn(f); want != said[f.Name.Name] {
				t.Errorf("%s runs on %q, README.md says %q", f.Name.Name, want, said[f.Name.Name])
			}
			delete(said, f.Name.Name)
			if where := runsOn(f); !strings.HasSuffix(where, "alone") && calls(f, "start") {
				t.Errorf("%s runs beside others and takes the cluster of those that run alone: use startQuiet", f.Name.Name)
			}
		}
	}
	for name := range said {
		t.Errorf("README.md has %s, and there is no such test", name)
	}
}

func calls(test *ast.FuncDecl, name string) (found bool) {
	ast.Inspect(test.Body, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			function, ok := call.Fun.(*ast.Ident)
			found = found || ok && function.Name == name
		}
		return true
	})
	return found
}

// runsOn reads from a test's code which suites it runs on, and beside what; "" where it needs none.
func runsOn(test *ast.FuncDecl) (where string) {
	ast.Inspect(test.Body, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		function, ok := call.Fun.(*ast.Ident)
		if !ok {
			return true
		}
		suite := func() string { return strings.Trim(call.Args[1].(*ast.BasicLit).Value, `"`) }
		switch function.Name {
		case "eachSuite":
			where = "both, alone"
		case "oneSuite":
			where = suite() + ", alone"
		case "inFull":
			where = "both, in full only"
		case "together":
			where = "both, together"
		case "togetherOn":
			where = suite() + ", together"
		}
		return true
	})
	return where
}
