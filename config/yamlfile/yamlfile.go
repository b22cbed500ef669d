// Package yamlfile reads YAML with the place of everything in it. [Parse] reads a text, [CheckPython] says what PyYAML (Patroni's
// parser, 6.0) refuses besides, [Value.Python] what it makes of a value. Parser: go.yaml.in/yaml, the YAML organization's port of
// libyaml, as PyYAML is its model: what the two read differently is listed, with PyYAML's own verdict, in this package's tests.
package yamlfile

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v4"

	"github.com/pgbaton/pgbaton/file"
)

const (
	maxNesting = 100 // of values that are looked at: an alias may be within itself
	maxMerges  = 8   // of << within <<
	// QuoteHint is what to do where a value without quotes was read as something else.
	QuoteHint = "a value with , : { } [ ] or # in it must be in quotes"
)

// Value is a value of a document; the zero Value is one that is not there.
type Value struct{ node *yaml.Node }

// Entry is a key of a mapping and its value.
type Entry struct {
	Key   Value
	Value Value
	Flow  bool // in {}, where a comma in an unquoted value makes the rest of it a key
}

// Document is a text with one YAML document.
type Document struct {
	File string // as it is called in errors
	Root Value
}

// Parse reads a text. A key that is there several times is no error here (see [Document.Twice]), and anchors and aliases are followed.
// The error is a [*file.Problem] that repeats nothing of the text, which may hold a password.
func Parse(name string, text []byte) (*Document, error) {
	fail := func(line, column int, problem, hint string) (*Document, error) {
		return nil, &file.Problem{File: name, Line: line, Column: column, Problem: "not valid YAML: " + problem, Hint: hint}
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // which some editors write, and YAML allows
	text = versionDirective().ReplaceAll(text, []byte("${1}#YAML 1."))
	d := &Document{File: name}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var document yaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return d, nil
		}
		if err != nil {
			return fail(explain(text, err))
		}
		if d.Root.node != nil {
			return fail(document.Line, document.Column, "more than one document", "")
		}
		d.Root = Value{&document}
	}
}

// versionDirective: 1.1 is what the parser knows; like PyYAML we take any 1.x.
var versionDirective = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?m)\A((?:#.*\n|\s*\n)*)%YAML 1\.`) })

// explain says where and what a parser's error is.
func explain(text []byte, err error) (line, column int, problem, hint string) {
	problem = "cannot be parsed"
	at, ok := errors.AsType[*yaml.LoadError](err)
	if !ok {
		return 0, 0, problem, ""
	}
	mark := at.Mark
	if at.ContextMark.Line > 0 && atEnd(text, mark.Line) {
		mark = at.ContextMark // what is missed at the end has been open since then
	}
	line, column = mark.Line, mark.Column
	switch message := at.Message; {
	case strings.HasPrefix(message, "unknown anchor"):
		problem = "an alias (*) of what is no anchor (&)"
	case line > 0 && tabAt(text, line, column):
		problem, hint = "a tab", "indent with spaces"
	case fixedMessage().MatchString(message):
		problem = message
		if strings.HasPrefix(message, "did not find expected ',' or ") {
			hint = QuoteHint
		}
	}
	return line, column, problem, hint
}

// atEnd reports whether nothing stands in a line and behind it.
func atEnd(text []byte, line int) bool {
	lines := bytes.SplitN(text, []byte("\n"), line)
	return len(lines) < line || len(bytes.TrimSpace(lines[line-1])) == 0
}

// fixedMessage lets through the parser's own sentences and none with text of the document.
var fixedMessage = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9 <>-]*('[\[\]{},:?!-]'[A-Za-z -]*)*$`) })

// tabAt reports whether a tab stands at a column, or in front of it where the line begins.
func tabAt(text []byte, line, column int) bool {
	lines := bytes.SplitN(text, []byte("\n"), line+1)
	if line < 1 || line > len(lines) {
		return false
	}
	l := lines[line-1]
	lead := l[:len(l)-len(bytes.TrimLeft(l, " \t"))]
	return bytes.IndexByte(lead, '\t') >= 0 || column > 0 && column <= len(l) && l[column-1] == '\t'
}

// plain follows aliases, and goes into the document.
func (v Value) plain() *yaml.Node {
	n := v.node
	for range maxNesting {
		switch {
		case n == nil:
			return nil
		case n.Kind == yaml.AliasNode:
			n = n.Alias
		case n.Kind == yaml.DocumentNode && len(n.Content) > 0:
			n = n.Content[0]
		case n.Kind == yaml.DocumentNode:
			return nil
		default:
			return n
		}
	}
	return nil
}

// Target is the value that an alias leads to, or the value itself: two aliases of one anchor have the same.
func (v Value) Target() Value { return Value{v.plain()} }

// IsQuoted reports whether a scalar is a text whatever it says: in quotes, as a block, or by its tag.
func (v Value) IsQuoted() bool {
	n := v.plain()
	return n != nil && n.Kind == yaml.ScalarNode && n.Style&(quotedStyles|yaml.TaggedStyle) != 0
}

const quotedStyles = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle

// Line is where the value stands, from 1; of an alias, where the alias does. 0: it is not there.
func (v Value) Line() int {
	if v.node == nil {
		return 0
	}
	if v.node.Kind == yaml.DocumentNode && len(v.node.Content) > 0 {
		return v.node.Content[0].Line
	}
	return v.node.Line
}

// IsNull reports whether there is no value: nothing, ~ or null.
func (v Value) IsNull() bool {
	n := v.plain()
	return n == nil || n.Kind == yaml.ScalarNode && n.Tag == "!!null"
}

// Mapping is a mapping's entries, in the order in which PyYAML puts them into a dictionary: those that it merges in (<<), of a list of
// them the first last, then its own. Of a key that is there several times the last counts. ok is false for anything but a mapping.
func (v Value) Mapping() (entries []Entry, ok bool) { return v.mapping(0) }

func (v Value) mapping(depth int) ([]Entry, bool) {
	n := v.plain()
	if n == nil || n.Kind != yaml.MappingNode || depth > maxMerges {
		return nil, false
	}
	var own, merged []Entry
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := Value{n.Content[i]}, Value{n.Content[i+1]}
		if key.isMerge() {
			merged = append(merged, value.merged(depth+1)...)
			continue
		}
		own = append(own, Entry{Key: key, Value: value, Flow: n.Style&yaml.FlowStyle != 0})
	}
	return append(merged, own...), true
}

func (v Value) isMerge() bool { return v.node.Kind == yaml.ScalarNode && v.node.Tag == "!!merge" }

// merged is what << takes from a mapping or a list of them.
func (v Value) merged(depth int) []Entry {
	if entries, ok := v.mapping(depth); ok {
		return entries
	}
	var out []Entry
	items, _ := v.Sequence()
	for _, item := range slices.Backward(items) {
		entries, _ := item.mapping(depth)
		out = append(out, entries...)
	}
	return out
}

// Sequence is a list's values.
func (v Value) Sequence() (values []Value, ok bool) {
	n := v.plain()
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil, false
	}
	for _, c := range n.Content {
		values = append(values, Value{c})
	}
	return values, true
}

// Scalar is a value as it was written, without quotes: a duration, a port and a name are all text here. ok is false for null, lists and
// mappings.
func (v Value) Scalar() (text string, ok bool) {
	n := v.plain()
	if n == nil || n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return "", false
	}
	return n.Value, true
}

// Twice is the first key that is set a second time in its own mapping, as a problem; nil when there is none. What is merged in (<<) may
// be set again.
func (d *Document) Twice() error {
	var found error
	walk(d.Root.node, func(n *yaml.Node) bool {
		if n.Kind != yaml.MappingNode {
			return found == nil
		}
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			text, ok := Value{n.Content[i]}.Scalar()
			if ok && seen[text] && found == nil {
				at := n.Content[i]
				found = &file.Problem{File: d.File, Line: at.Line, Column: at.Column, Problem: "not valid YAML: a key is set twice"}
			}
			seen[text] = true
		}
		return found == nil
	})
	return found
}

// walk calls visit for each node that is written in the document, not for aliases' targets again, until it says no.
func walk(n *yaml.Node, visit func(*yaml.Node) bool) bool {
	if n == nil || !visit(n) {
		return n == nil
	}
	for _, c := range n.Content {
		if !walk(c, visit) {
			return false
		}
	}
	return true
}
