package patroni

import (
	"bytes"
	"errors"
	"os"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/pgbaton/pgbaton/file"
)

// configLimit is more than any Patroni's configuration has.
const configLimit = 4 << 20

// CheckConfig returns a [*file.Problem] where a configuration file is no YAML that Patroni can load. Patroni itself tells nobody: it logs
// what is wrong, goes on with the configuration that it had, and reloads the server with that (config.py, 4.0.7 and 4.1.5).
//
// nil is not the promise that Patroni takes it: its values are not looked at, nor are tags (!) that it does not know.
func CheckConfig(path string) error {
	fail := func(line, column int, problem string) error {
		return &file.Problem{File: path, Line: line, Column: column, Problem: problem}
	}
	text, err := file.Read(path, configLimit)
	if err != nil {
		if failed := (*os.PathError)(nil); errors.As(err, &failed) {
			err = failed.Err // the path is told already
		}
		return fail(0, 0, "cannot be read: "+err.Error())
	}
	text, line, column := withoutTabs(bytes.TrimPrefix(text, []byte("\ufeff")))
	if line > 0 {
		return fail(line, column, "a tab outside quotes, comments and blocks: Patroni's YAML allows none")
	}
	body, err := parseConfig(text)
	var at yaml.Error
	if errors.As(err, &at) && at.GetToken() != nil && at.GetToken().Position != nil {
		line, column = at.GetToken().Position.Line, at.GetToken().Position.Column
	}
	switch {
	case err != nil:
		return fail(line, column, "not valid YAML")
	case body == nil:
		return fail(0, 0, "has no configuration in it")
	}
	if tag, ok := body.(*ast.TagNode); ok {
		body = tag.Value
	}
	if anchor, ok := body.(*ast.AnchorNode); ok {
		body = anchor.Value
	}
	if _, ok := body.(ast.MapNode); !ok {
		return fail(0, 0, "has no \"key: value\" at its top")
	}
	return nil
}

// parseConfig returns the only document, nil when there is none.
func parseConfig(text []byte) (body ast.Node, err error) {
	// A file that the parser cannot stand is a bad file.
	defer func() {
		if recover() != nil {
			err = errors.New("the parser gave up")
		}
	}()
	// PyYAML takes the last of a key that is set twice.
	parsed, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, err
	}
	for _, doc := range parsed.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.DirectiveType {
			continue
		}
		if body != nil {
			return nil, &yaml.SyntaxError{Message: "a second document", Token: doc.Body.GetToken()}
		}
		body = doc.Body
	}
	if body != nil {
		var value any // the aliases lead somewhere
		err = yaml.NodeToValue(body, &value, yaml.AllowDuplicateMapKey())
	}
	return body, err
}

var (
	quotedText   = regexp.MustCompile(`"(\\.|[^"\\])*"|'[^']*'`)
	commentText  = regexp.MustCompile(`(^| )#.*$`)
	opensABlock  = regexp.MustCompile(`(^|\s)[|>][-+0-9]*\s*$`)
	leadingSpace = regexp.MustCompile(`^ *`)
)

// withoutTabs returns where the first tab is that PyYAML does not allow, and goccy/go-yaml does: "work_mem:\t4MB", or one at the end of a
// line. (PyYAML knows tabs in quotes, comments and blocks (|) only.) Those it puts blanks for: within quotes they mislead goccy/go-yaml about
// the columns behind them. Where a quote stays open, all that follows is left to the parser.
func withoutTabs(text []byte) (clean []byte, line, column int) {
	if !bytes.ContainsRune(text, '\t') {
		return text, 0, 0
	}
	lines := strings.Split(string(text), "\n")
	block := -1 // how far the line that has opened it is indented
	for i, l := range lines {
		l = strings.TrimSuffix(l, "\r")
		indent := len(leadingSpace.FindString(l))
		if block >= 0 && (indent == len(l) || indent > block) {
			lines[i] = strings.ReplaceAll(lines[i], "\t", " ")
			continue
		}
		block = -1
		bare := commentText.ReplaceAllString(quotedText.ReplaceAllStringFunc(l, func(s string) string { return strings.Repeat("_", len(s)) }), "")
		if strings.ContainsAny(bare, `"'`) {
			break
		}
		if at := strings.IndexByte(bare, '\t'); at >= 0 {
			return nil, i + 1, at + 1
		}
		if opensABlock.MatchString(bare) {
			block = indent
		}
		lines[i] = strings.ReplaceAll(lines[i], "\t", " ")
	}
	return []byte(strings.Join(lines, "\n")), 0, 0
}
