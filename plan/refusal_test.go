package plan_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestRefusalsAreExplained: each id has its line in the page, and the page has no other.
func TestRefusalsAreExplained(t *testing.T) {
	page, err := os.ReadFile("../docs/maintenance-order.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "## Refusals")
	file, err := parser.ParseFile(token.NewFileSet(), "refusal.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ids := 0
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			id, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil || !strings.Contains(table, "| `"+id+"` | ") {
				t.Errorf("%s is not explained (%v)", id, err)
			}
			ids++
		}
		return true
	})
	if lines := strings.Count(table, "\n| `"); lines != ids || ids == 0 {
		t.Errorf("%d ids, %d lines", ids, lines)
	}
}
