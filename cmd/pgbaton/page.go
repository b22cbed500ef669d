package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
	"golang.org/x/sys/unix"
)

// page is what a person reads. On a terminal it is in colour, and no line is wider than the terminal is, unless a single word is: a path
// or a command is not cut, so that it can be copied. Elsewhere lines stay whole, for grep. Nothing that was said by somebody else gets
// through that could steer a terminal.
type page struct {
	out    io.Writer
	width  int // columns; 0: lines are not broken
	colour bool
}

const (
	usualWidth = 80
	leastWidth = 40
)

// page is standard output as one. Colour obeys NO_COLOR (no-color.org).
func (p *program) page() *page {
	if !isTerminal(p.stdout) {
		return &page{out: p.stdout}
	}
	width := usualWidth
	if f, ok := p.stdout.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			width = max(int(size.Col), leastWidth)
		}
	}
	return &page{out: p.stdout, width: width, colour: os.Getenv("NO_COLOR") == ""}
}

// colour is a parameter of SGR (ECMA-48).
type colour string

const (
	bold   colour = "1"
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
)

// cell is a text of a table.
type cell struct {
	text   string
	colour colour
}

// cells are some without a colour.
func cells(texts ...string) []cell {
	row := make([]cell, len(texts))
	for i, text := range texts {
		row[i].text = text
	}
	return row
}

// bad is red where there is something to say.
func bad(text string) cell { return cell{text, red} }

func (p *page) paint(c colour, text string) string {
	if !p.colour || c == "" || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// line writes a text behind a beginning, which is painted, and breaks it at spaces. What follows stands below its own beginning.
func (p *page) line(c colour, head, text string) {
	p.say(p.paint(c, head)+strings.Join(p.broken(oneLine(text), p.width-runewidth.StringWidth(head)),
		"\n"+strings.Repeat(" ", runewidth.StringWidth(head))), "")
}

// say writes a line that is fit to be shown as it is.
func (p *page) say(text string, c colour) { fmt.Fprintln(p.out, p.paint(c, text)) }

// broken is a text as lines of at most so many columns.
func (p *page) broken(text string, columns int) []string {
	if p.width == 0 {
		return []string{text}
	}
	lines := []string{""}
	for word := range strings.FieldsSeq(text) {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = word
		case runewidth.StringWidth(*last)+1+runewidth.StringWidth(word) <= columns:
			*last += " " + word
		default:
			lines = append(lines, word)
		}
	}
	return lines
}

const (
	gap         = 2  // columns between two columns of a table
	indent      = 4  // of what stands below its row
	leastBeside = 24 // what a last column needs to stand beside the others
)

// table writes rows below their heads. Where they are too wide, the last column, which is the text, is broken or stands below its row;
// where that does not do, each cell has a line of its own.
func (p *page) table(heads []string, rows [][]cell) {
	widths := make([]int, len(heads))
	for i, head := range heads {
		widths[i] = runewidth.StringWidth(head)
		for _, row := range rows {
			row[i].text = oneLine(row[i].text)
			widths[i] = max(widths[i], runewidth.StringWidth(row[i].text))
		}
	}
	last := len(heads) - 1
	before := 0
	for _, w := range widths[:last] {
		before += w + gap
	}
	beside := leastBeside
	for _, row := range rows {
		for word := range strings.FieldsSeq(row[last].text) {
			beside = max(beside, runewidth.StringWidth(word))
		}
	}
	switch {
	case p.width == 0 || before+widths[last] <= p.width:
		p.row(widths, headCells(heads))
		for _, row := range rows {
			p.row(widths, row)
		}
	case before+beside <= p.width:
		p.row(widths, headCells(heads))
		for _, row := range rows {
			lines := p.broken(row[last].text, p.width-before)
			p.row(widths, append(row[:last:last], cell{lines[0], row[last].colour}))
			p.below(lines[1:], before, row[last].colour)
		}
	case before-gap <= p.width:
		p.row(widths, headCells(heads[:last]))
		for _, row := range rows {
			p.row(widths, row[:last])
			if row[last].text != "" {
				p.below(p.broken(row[last].text, p.width-indent), indent, row[last].colour)
			}
		}
	default:
		widest := 0
		for _, head := range heads {
			widest = max(widest, runewidth.StringWidth(head)+gap)
		}
		for n, row := range rows {
			if n > 0 {
				p.say("", "")
			}
			for i, c := range row {
				if c.text != "" {
					p.say(
						p.paint(
							bold,
							runewidth.FillRight(heads[i], widest),
						)+p.paint(
							c.colour,
							strings.Join(p.broken(c.text, p.width-widest),
								"\n"+strings.Repeat(" ", widest)),
						),
						"",
					)
				}
			}
		}
	}
}

func headCells(heads []string) []cell {
	row := cells(heads...)
	for i := range row {
		row[i].colour = bold
	}
	return row
}

func (p *page) row(widths []int, row []cell) {
	for len(row) > 0 && row[len(row)-1].text == "" {
		row = row[:len(row)-1] // no spaces at the end
	}
	var line strings.Builder
	for i, c := range row {
		line.WriteString(p.paint(c.colour, c.text))
		if i < len(row)-1 {
			line.WriteString(strings.Repeat(" ", widths[i]-runewidth.StringWidth(c.text)+gap))
		}
	}
	p.say(line.String(), "")
}

func (p *page) below(lines []string, columns int, c colour) {
	for _, line := range lines {
		p.say(strings.Repeat(" ", columns)+p.paint(c, line), "")
	}
}

// oneLine makes a text fit to be shown: one line, "?" for each character that does not print, such as those that begin a terminal's control
// sequences, and those that turn the direction of writing.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r != utf8.RuneError && unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.Join(strings.Fields(text), " "))
}

// printJSON writes a value for programs, in lines where a person may look at it, too. What JSON lets through and some terminals obey is
// escaped.
func (p *program) printJSON(value any, indented bool) error {
	var text strings.Builder
	e := json.NewEncoder(&text)
	if indented {
		e.SetIndent("", "  ")
	}
	if err := e.Encode(value); err != nil {
		return err
	}
	_, err := io.WriteString(p.stdout, plainJSON(text.String()))
	return err
}

// plainJSON: such characters can stand in strings only.
func plainJSON(text string) string {
	if strings.IndexFunc(text, steers) < 0 {
		return text
	}
	var out strings.Builder
	for _, r := range text {
		switch {
		case !steers(r):
			out.WriteRune(r)
		case r > 0xffff: // as a pair of surrogates
			r -= 0x10000
			fmt.Fprintf(&out, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String()
}

func steers(r rune) bool { return r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) }
