package config

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	maxFile     = 1 << 20
	maxPassword = 64 << 10
	maxNesting  = 100 // the parser takes quadratic time in it
)

// tree is a YAML document with the line of everything in it.
type tree struct {
	file    string
	root    ast.Node // nil when the document is empty
	anchors map[string]ast.Node
}

// parseTree never repeats the document's text in an error: it may hold a password.
func parseTree(file string, text []byte) (t *tree, err error) {
	hint := ""
	fail := func(line int, problem string) error {
		return &Error{File: file, Line: line, Problem: "not valid YAML: " + problem, Hint: hint}
	}
	// A file that the parser cannot stand is a bad file, not a crash of the guard.
	defer func() {
		if r := recover(); r != nil {
			t, err = nil, fail(0, "the parser gave up")
		}
	}()
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // which some editors write, and YAML allows
	if line := tooDeep(text); line > 0 {
		return nil, fail(line, fmt.Sprintf("nested deeper than %d levels", maxNesting))
	}
	doc, err := parser.ParseBytes(text, 0)
	if err != nil {
		line, problem := 0, "cannot be parsed"
		var at yaml.Error
		if errors.As(err, &at) && at.GetToken() != nil && at.GetToken().Position != nil {
			line = at.GetToken().Position.Line
		}
		var syntax *yaml.SyntaxError
		var twice *yaml.DuplicateKeyError
		switch {
		case errors.As(err, &syntax) && strings.Contains(syntax.Message, "already defined"), errors.As(err, &twice):
			problem = "a key is set twice"
		case errors.As(err, &syntax) && strings.Contains(syntax.Message, "'\t'"):
			problem, hint = "a tab", "indent with spaces"
		case errors.As(err, &syntax) && fixedMessage(syntax.Message):
			problem = syntax.Message
			if strings.HasSuffix(problem, "must be specified") {
				hint = quoteIt
			}
		}
		return nil, fail(line, problem)
	}
	t = &tree{file: file, anchors: map[string]ast.Node{}}
	for _, d := range doc.Docs {
		if d.Body == nil || d.Body.Type() == ast.DirectiveType {
			continue
		}
		if t.root != nil {
			return nil, fail(lineOf(d.Body), "more than one document")
		}
		t.root = d.Body
	}
	if t.root != nil {
		ast.Walk(anchorFinder(t.anchors), t.root)
		missing := aliasFinder{anchors: t.anchors}
		if ast.Walk(&missing, t.root); missing.found != nil {
			return nil, fail(lineOf(missing.found), "an alias (*) of what is no anchor (&)")
		}
	}
	return t, nil
}

// fixedMessage lets through the parser's own sentences and none with text of the document.
func fixedMessage(message string) bool {
	return regexp.MustCompile(`^[A-Za-z -]*('[\[\]{},:]'[A-Za-z -]*)*$`).MatchString(message)
}

func tooDeep(text []byte) (line int) {
	line, depth := 1, 0
	dashes, leading := 0, true // "- - - -" nests once for each
	for _, b := range text {
		switch b {
		case '\n':
			line++
			dashes, leading = 0, true
		case '[', '{':
			depth++
			leading = false
		case ']', '}':
			depth--
		case '-', '?':
			if leading {
				dashes++
			}
		case ' ':
		default:
			leading = false
		}
		if depth > maxNesting || dashes > maxNesting {
			return line
		}
	}
	return 0
}

type anchorFinder map[string]ast.Node

func (a anchorFinder) Visit(n ast.Node) ast.Visitor {
	if anchor, ok := n.(*ast.AnchorNode); ok {
		a[anchor.Name.GetToken().Value] = anchor.Value
	}
	return a
}

// aliasFinder finds an alias without an anchor, which would pass for a value that was left out.
type aliasFinder struct {
	anchors map[string]ast.Node
	found   ast.Node
}

func (a *aliasFinder) Visit(n ast.Node) ast.Visitor {
	if alias, ok := n.(*ast.AliasNode); ok && a.found == nil {
		if _, ok := a.anchors[alias.Value.GetToken().Value]; !ok {
			a.found = n
		}
	}
	return a
}

// plain takes away what is around a value: anchors, tags, and an alias's detour.
func (t *tree) plain(n ast.Node) ast.Node {
	for range maxNesting {
		switch v := n.(type) {
		case *ast.AnchorNode:
			n = v.Value
		case *ast.TagNode:
			n = v.Value
		case *ast.AliasNode:
			n = t.anchors[v.Value.GetToken().Value]
		default:
			return n
		}
	}
	return nil // an alias of itself
}

type entry struct {
	key   string
	line  int
	value ast.Node
	flow  bool // in {}, where a comma in an unquoted value makes the rest of it a key
}

// mapping is a mapping's entries, those that it merges in last.
func (t *tree) mapping(n ast.Node) ([]entry, bool) { return t.mappingAt(n, 0) }

func (t *tree) mappingAt(n ast.Node, depth int) ([]entry, bool) {
	if depth > 8 {
		return nil, false
	}
	var values []*ast.MappingValueNode
	flow := false
	switch v := t.plain(n).(type) {
	case *ast.MappingNode:
		values, flow = v.Values, v.IsFlowStyle
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{v}
	default:
		return nil, false
	}
	var own, merged []entry
	for _, v := range values {
		if v.Key.IsMergeKey() {
			more, _ := t.mappingAt(v.Value, depth+1)
			merged = append(merged, more...)
			continue
		}
		key, _ := t.scalar(v.Key)
		own = append(own, entry{key, lineOf(v.Key), v.Value, flow})
	}
	return append(own, merged...), true
}

func (t *tree) sequence(n ast.Node) ([]ast.Node, bool) {
	s, ok := t.plain(n).(*ast.SequenceNode)
	if !ok {
		return nil, false
	}
	return s.Values, true
}

// scalar is a value as it was written: a duration, a port and a name are all text here.
func (t *tree) scalar(n ast.Node) (string, bool) {
	switch v := t.plain(n).(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	case *ast.MappingKeyNode:
		return t.scalar(v.Value)
	case *ast.NullNode, nil:
		return "", false
	case ast.ScalarNode:
		return v.GetToken().Value, true
	}
	return "", false
}

func (t *tree) isNull(n ast.Node) bool {
	switch t.plain(n).(type) {
	case *ast.NullNode, nil:
		return true
	}
	return false
}

// at looks a value up by its path; "" when there is none.
func (t *tree) at(path ...string) string {
	n := t.root
	for _, step := range path {
		entries, ok := t.mapping(n)
		if !ok {
			return ""
		}
		n = nil
		for _, e := range entries {
			if e.key == step {
				n = e.value
				break
			}
		}
		if n == nil {
			return ""
		}
	}
	s, _ := t.scalar(n)
	return s
}

func lineOf(n ast.Node) int {
	var tk *token.Token
	if n != nil {
		tk = n.GetToken()
	}
	if tk == nil || tk.Position == nil {
		return 0
	}
	return tk.Position.Line
}
