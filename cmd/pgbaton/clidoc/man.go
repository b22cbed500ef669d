package clidoc

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// Section is a part of every man page that the model does not have.
type Section struct {
	Title string
	Items [][2]string // a term and what it means
}

// Man are the man pages, by file name: NAME.1 of the program, and NAME-COMMAND.1 of each command. The sections stand at the end of every
// page.
func Man(app *kong.Application, version string, sections ...Section) map[string]string {
	pages := map[string]string{app.Name + ".1": programPage(app, version, sections)}
	for _, node := range commands(app) {
		pages[app.Name+"-"+node.Name+".1"] = commandPage(app, node, version, sections)
	}
	return pages
}

type page struct{ strings.Builder }

// macro writes a line that troff acts on; its words are quoted.
func (p *page) macro(name string, words ...string) {
	p.WriteString("." + name)
	for _, word := range words {
		p.WriteString(` "` + strings.ReplaceAll(roff(word), `"`, `\(dq`) + `"`)
	}
	p.WriteString("\n")
}

// text writes paragraphs.
func (p *page) text(text string) {
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			p.macro("PP")
		}
		for line := range strings.Lines(paragraph) {
			line = roff(strings.TrimSpace(line))
			if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
				line = `\&` + line
			}
			p.WriteString(line + "\n")
		}
	}
}

// item writes a term, which is troff already, and what it means.
func (p *page) item(term, text string) {
	p.macro("TP")
	p.WriteString(term + "\n")
	p.text(text)
}

var roffEscapes = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\u2026", "...", "\u2192", "->")

func roff(text string) string { return roffEscapes.Replace(text) }

func bold(text string) string   { return `\fB` + roff(text) + `\fR` }
func italic(text string) string { return `\fI` + roff(text) + `\fR` }

func newPage(app *kong.Application, name, version, help string) *page {
	p := &page{}
	p.macro("TH", strings.ToUpper(name), "1", "", app.Name+" "+version, app.Name)
	p.macro("SH", "NAME")
	p.WriteString(roff(name) + ` \- ` + roff(strings.TrimSuffix(firstLine(help), ".")) + "\n")
	p.macro("SH", "SYNOPSIS")
	return p
}

func programPage(app *kong.Application, version string, sections []Section) string {
	p := newPage(app, app.Name, version, app.Help)
	p.WriteString(bold(app.Name) + " " + italic("COMMAND") + " [" + italic("FLAGS") + "]\n")
	p.macro("SH", "DESCRIPTION")
	p.text(app.Help)
	p.macro("SH", "COMMANDS")
	for _, node := range commands(app) {
		p.item(bold(app.Name+" "+node.Name)+arguments(node), node.Help)
	}
	p.flagSections(app.Node)
	p.end(app, app.Name, sections)
	return p.String()
}

func commandPage(app *kong.Application, node *kong.Node, version string, sections []Section) string {
	name := app.Name + "-" + node.Name
	p := newPage(app, name, version, node.Help)
	for i, spelling := range names(node) {
		if i > 0 {
			p.macro("br")
		}
		p.WriteString(bold(app.Name+" "+spelling) + arguments(node) + " [" + italic("FLAGS") + "]\n")
	}
	p.macro("SH", "DESCRIPTION")
	p.text(node.Help)
	if node.Detail != "" {
		p.macro("PP")
		p.text(node.Detail)
	}
	if len(node.Positional) > 0 {
		p.macro("SH", "ARGUMENTS")
		for _, v := range node.Positional {
			p.item(italic(strings.ToUpper(v.Name)), valueHelp(v))
		}
	}
	p.flagSections(node)
	if len(flags(app.Node)) > 0 {
		p.macro("SH", "COMMON FLAGS")
		p.text("All commands take these. " + app.Name + "(1) explains them.")
		p.macro("PP")
		var common []string
		for _, f := range flags(app.Node) {
			common = append(common, bold("--"+f.Name))
		}
		p.WriteString(strings.Join(common, ",\n") + "\n")
	}
	p.end(app, name, sections)
	return p.String()
}

// flagSections are a node's own flags, those without a group first.
func (p *page) flagSections(node *kong.Node) {
	var titles []string
	groups := map[string][]*kong.Flag{}
	for _, f := range flags(node) {
		title := "FLAGS"
		if f.Group != nil && f.Group.Title != "" {
			title = strings.TrimSuffix(f.Group.Title, ":")
		}
		if groups[title] == nil {
			titles = append(titles, title)
		}
		groups[title] = append(groups[title], f)
	}
	for _, title := range titles {
		p.macro("SH", strings.ToUpper(title))
		for _, f := range groups[title] {
			p.item(flagTerm(f), valueHelp(f.Value))
		}
	}
}

func flagTerm(f *kong.Flag) string {
	var terms []string
	for _, word := range spelled(f) {
		term := bold(word)
		if takesValue(f) {
			term += "=" + italic(placeholder(f))
		}
		terms = append(terms, term)
	}
	return strings.Join(terms, ", ")
}

func placeholder(f *kong.Flag) string {
	if f.PlaceHolder != "" {
		return f.PlaceHolder
	}
	if c := choices(f.Value); c != nil {
		return strings.Join(c, "|")
	}
	return strings.ToUpper(f.Name)
}

func valueHelp(v *kong.Value) string {
	text := v.Help
	if v.HasDefault && v.Default != "" {
		text += " The default is " + v.Default + "."
	}
	if v.Tag != nil && len(v.Tag.Envs) > 0 {
		text += " The environment variable is " + strings.Join(v.Tag.Envs, ", ") + "."
	}
	return text
}

// arguments are a command's, for the synopsis. Only the last ones can be left out.
func arguments(node *kong.Node) string {
	out, open := "", 0
	for _, v := range node.Positional {
		out += " "
		if !v.Required {
			out += "["
			open++
		}
		out += italic(strings.ToUpper(v.Name))
	}
	return out + strings.Repeat("]", open)
}

func (p *page) end(app *kong.Application, name string, sections []Section) {
	for _, s := range sections {
		p.macro("SH", s.Title)
		for _, item := range s.Items {
			p.item(bold(item[0]), item[1])
		}
	}
	p.macro("SH", "SEE ALSO")
	also := []string{}
	if name != app.Name {
		also = append(also, bold(app.Name)+"(1)")
	}
	for _, node := range commands(app) {
		if other := app.Name + "-" + node.Name; other != name {
			also = append(also, fmt.Sprintf("%s(1)", bold(other)))
		}
	}
	p.WriteString(strings.Join(also, ",\n") + "\n")
}
