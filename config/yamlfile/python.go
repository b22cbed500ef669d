package yamlfile

import (
	"bytes"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v4"

	"github.com/pgbaton/pgbaton/file"
)

// YAML 1.1's types of words without quotes, as PyYAML tells them (https://yaml.org/type/).
var (
	wordTrue  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(yes|Yes|YES|true|True|TRUE|on|On|ON)$`) })
	wordFalse = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(no|No|NO|false|False|FALSE|off|Off|OFF)$`) })
	wordNull  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(~|null|Null|NULL|)$`) })
	wordInt   = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*(:[0-5]?[0-9])*)$`)
	})
	wordFloat = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^([-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?|` +
			`[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$`)
	})
)

// Python is the text that Python's str makes of what PyYAML makes of a scalar, which is what Patroni puts into an address or a password:
// 8008 of 8008, but True of yes, 8 of 010, 750 of 12:30. Dates stay as they are written. ok is false for null, lists and mappings.
func (v Value) Python() (text string, ok bool) {
	n := v.plain()
	if n == nil || n.Kind != yaml.ScalarNode {
		return "", false
	}
	word := n.Value
	tag := n.Tag
	if n.Style&yaml.TaggedStyle == 0 {
		if n.Style&quotedStyles != 0 {
			return word, true
		}
		tag = typeOf(word)
	}
	switch tag {
	case "!!null":
		return "", false
	case "!!bool":
		if wordTrue().MatchString(word) {
			return "True", true
		}
		return "False", true
	case "!!int":
		return pythonInt(word), true
	case "!!float":
		return pythonFloat(word), true
	}
	return word, true
}

func typeOf(word string) string {
	switch {
	case wordNull().MatchString(word):
		return "!!null"
	case wordTrue().MatchString(word), wordFalse().MatchString(word):
		return "!!bool"
	case wordFloat().MatchString(word):
		return "!!float"
	case wordInt().MatchString(word):
		return "!!int"
	}
	return "!!str"
}

func pythonInt(word string) string {
	text := strings.ReplaceAll(word, "_", "")
	negative := strings.HasPrefix(text, "-")
	text = strings.TrimLeft(text, "+-")
	sum, ok := new(big.Int), true
	switch {
	case strings.HasPrefix(text, "0b"):
		_, ok = sum.SetString(text[2:], 2)
	case strings.HasPrefix(text, "0x"):
		_, ok = sum.SetString(text[2:], 16)
	case strings.HasPrefix(text, "0"):
		_, ok = sum.SetString(text, 8)
	default: // 190:20:30 has the base 60
		for part := range strings.SplitSeq(text, ":") {
			digits, is := new(big.Int).SetString(part, 10)
			if ok = is; !ok {
				break
			}
			sum.Add(sum.Mul(sum, big.NewInt(60)), digits)
		}
	}
	if !ok {
		return word
	}
	if negative {
		sum.Neg(sum)
	}
	return sum.String()
}

func pythonFloat(word string) string {
	text := strings.ToLower(strings.ReplaceAll(word, "_", ""))
	sign := 1.0
	if strings.HasPrefix(text, "-") {
		sign = -1
	}
	text = strings.TrimLeft(text, "+-")
	var f float64
	switch text {
	case ".inf":
		f = math.Inf(1)
	case ".nan":
		return "nan"
	default:
		for part := range strings.SplitSeq(text, ":") {
			digits, err := strconv.ParseFloat(part, 64)
			if err != nil {
				return word
			}
			f = f*60 + digits
		}
	}
	f *= sign
	if math.IsInf(f, 1) {
		return "inf"
	}
	if math.IsInf(f, -1) {
		return "-inf"
	}
	// As repr does: digits up to 16 places in front of the point, and at most four zeros behind it.
	if size := math.Abs(f); f != 0 && (size < 1e-4 || size >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// CheckPython returns a [*file.Problem] where PyYAML's safe_load, or Patroni after it, refuses a document that [Parse] takes: tabs, a
// tag that it does not know, a list as a key, an anchor that is there twice, a merge (<<) of something that has no keys. text is what
// the document was read from.
func (d *Document) CheckPython(text []byte) error {
	fail := func(line, column int, problem string) error {
		return &file.Problem{File: d.File, Line: line, Column: column, Problem: problem}
	}
	if line, column := badTab(bytes.TrimPrefix(text, []byte("\ufeff"))); line > 0 {
		return fail(line, column, "a tab outside quotes, comments and blocks: Patroni's YAML allows none")
	}
	var found error
	anchors := map[string]bool{}
	walk(d.Root.node, func(n *yaml.Node) bool {
		problem := ""
		switch {
		case n.Anchor != "" && anchors[n.Anchor]:
			problem = "an anchor (&) that is there twice"
		case !knownTag(n):
			problem = "a tag (!) that Patroni does not know"
		case n.Kind == yaml.MappingNode:
			for i := 0; i+1 < len(n.Content) && problem == ""; i += 2 {
				problem = wrongEntry(Value{n.Content[i]}, Value{n.Content[i+1]})
				if problem != "" {
					n = n.Content[i]
				}
			}
		}
		anchors[n.Anchor] = n.Anchor != ""
		if problem != "" {
			found = fail(n.Line, n.Column, "not valid YAML: "+problem)
		}
		return found == nil
	})
	return found
}

func wrongEntry(key, value Value) string {
	if key.isMerge() {
		ok := value.plain() != nil && value.plain().Kind == yaml.MappingNode
		if items, list := value.Sequence(); list {
			ok = true
			for _, item := range items {
				_, mapping := item.Mapping()
				ok = ok && mapping
			}
		}
		if !ok {
			return "a merge (<<) of something that has no keys"
		}
		return ""
	}
	if n := key.plain(); n == nil || n.Kind != yaml.ScalarNode {
		return "a key that is a list or has keys itself: a value with { } [ ] in it must be in quotes"
	}
	return ""
}

// knownTag: of other tags safe_load knows no constructor. A lone = without quotes has one of these.
func knownTag(n *yaml.Node) bool {
	if n.Kind == yaml.ScalarNode && n.Value == "=" && n.Style == 0 {
		return false
	}
	if n.Style&yaml.TaggedStyle == 0 {
		return true
	}
	switch n.ShortTag() {
	case "!!null", "!!bool", "!!int", "!!float", "!!binary", "!!timestamp", "!!omap", "!!pairs", "!!set", "!!str", "!!seq", "!!map", "!":
		return true
	}
	return false
}

var (
	quotedText   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`"(\\.|[^"\\])*"|'[^']*'`) })
	commentText  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(^| )#.*$`) })
	opensABlock  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(^|\s)[|>][-+0-9]*\s*$`) })
	leadingSpace = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^ *`) })
)

// badTab returns where the first tab is that PyYAML does not allow, and our parser does: "work_mem:\t4MB", or one at the end of a line.
// (PyYAML knows tabs in quotes, comments and blocks (|) only.) Where a quote stays open at the end of a line, all that follows is left
// to the parser.
func badTab(text []byte) (line, column int) {
	if !bytes.ContainsRune(text, '\t') {
		return 0, 0
	}
	block, i := -1, 0 // how far the line that has opened it is indented
	for l := range strings.SplitSeq(string(text), "\n") {
		i++
		l = strings.TrimSuffix(l, "\r")
		indent := len(leadingSpace().FindString(l))
		if block >= 0 && (indent == len(l) || indent > block) {
			continue
		}
		block = -1
		bare := commentText().ReplaceAllString(
			quotedText().ReplaceAllStringFunc(l, func(s string) string { return strings.Repeat("_", len(s)) }),
			"",
		)
		if strings.ContainsAny(bare, `"'`) {
			return 0, 0
		}
		if at := strings.IndexByte(bare, '\t'); at >= 0 {
			return i, at + 1
		}
		if opensABlock().MatchString(bare) {
			block = indent
		}
	}
	return 0, 0
}
