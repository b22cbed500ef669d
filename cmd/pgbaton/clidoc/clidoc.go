// Package clidoc writes what people expect beside a program, from the model of its command line: a man page for the program and for each
// of its commands, and completion for Bash, zsh and fish. It writes text and does nothing else; what it shows is what the parser knows.
//
// The libraries that do this for kong (mango-kong, kongplete, kong-completion) are of 2022 and 2023; they write one page for all commands,
// or ask the program at each press of the key. So it is done here.
package clidoc

import (
	"strings"

	"github.com/alecthomas/kong"
)

// The struct tag `complete` says what a value is, where the parser takes any text: a file, a directory, or one of a|b|c.
const (
	tagName = "complete"
	aFile   = "file"
	aDir    = "dir"
)

// commands are those that people see, in the order of the help.
func commands(app *kong.Application) []*kong.Node {
	var shown []*kong.Node
	for _, node := range app.Children {
		if !node.Hidden {
			shown = append(shown, node)
		}
	}
	return shown
}

// flags are those of one node that people see; those of the program with --help.
func flags(node *kong.Node) []*kong.Flag {
	var shown []*kong.Flag
	for _, f := range node.Flags {
		if !f.Hidden {
			shown = append(shown, f)
		}
	}
	return shown
}

// names are a command's name and its aliases.
func names(node *kong.Node) []string { return append([]string{node.Name}, node.Aliases...) }

// choices are the values that the parser takes; none where it takes any text.
func choices(v *kong.Value) []string {
	if v.Enum != "" {
		return v.EnumSlice()
	}
	if tag := v.Tag.Get(tagName); strings.Contains(tag, "|") {
		return strings.Split(tag, "|")
	}
	return nil
}

// takesValue: the next word belongs to the flag, where no = does.
func takesValue(f *kong.Flag) bool { return !f.IsBool() && !f.IsCounter() }

// spelled is how a flag is typed, without its value.
func spelled(f *kong.Flag) []string {
	out := []string{"--" + f.Name}
	if f.Short != 0 {
		out = append(out, "-"+string(f.Short))
	}
	return out
}

// quoted is a word for a shell.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}
