package file

import (
	"fmt"
	"strings"
)

// Problem is what is wrong with a file, or with a value that has no file (a flag, a variable). As an error it is a *Problem.
type Problem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`   // from 1; 0: the file as a whole
	Column  int    `json:"column,omitempty"` // from 1; 0: the line as a whole
	Name    string `json:"name,omitempty"`   // of the setting, flag or variable
	Problem string `json:"problem"`          // never a value that may be a secret
	Hint    string `json:"hint,omitempty"`   // what to do about it; a question is shown in brackets
	Err     error  `json:"-"`                // the cause, where there is one. Problem says it already
}

// String is one line: file:line:column: name: problem: hint, each where there is one. The name is left out where the problem begins with
// it or quotes it.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
			if p.Column > 0 {
				fmt.Fprintf(&b, ":%d", p.Column)
			}
		}
		b.WriteString(": ")
	}
	if p.Name != "" && !strings.Contains(p.Problem, `"`+p.Name+`"`) && !strings.HasPrefix(p.Problem, p.Name+" ") {
		b.WriteString(p.Name + ": ")
	}
	b.WriteString(p.Problem)
	switch {
	case strings.HasSuffix(p.Hint, "?"):
		b.WriteString(" (" + p.Hint + ")")
	case p.Hint != "":
		b.WriteString(": " + p.Hint)
	}
	return b.String()
}

// Error is String.
func (p *Problem) Error() string { return p.String() }

// Unwrap is the cause, such as fs.ErrNotExist of a file that is not there.
func (p *Problem) Unwrap() error { return p.Err }
