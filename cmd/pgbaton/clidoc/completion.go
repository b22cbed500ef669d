package clidoc

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// Shells are those that Completion knows.
func Shells() []string { return []string{"bash", "zsh", "fish"} }

// Completion is the script that makes a shell complete the program's commands, flags and values; "" for a shell that is not one of Shells.
func Completion(app *kong.Application, shell string) string {
	switch shell {
	case "bash":
		return bash(app)
	case "zsh":
		return zsh(app)
	case "fish":
		return fish(app)
	}
	return ""
}

// script is text that grows by lines.
type script struct{ strings.Builder }

func (s *script) line(format string, args ...any) { fmt.Fprintf(s, format+"\n", args...) }

// bash needs no more than Bash itself: the package bash-completion is not everywhere.
func bash(app *kong.Application) string {
	s := &script{}
	s.line("# Completion of %s for Bash.", app.Name)
	s.line("_%s() {", app.Name)
	s.WriteString(`	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= position=0 words= i
	COMPREPLY=()
	# "=" is a word of its own for Bash.
	if [[ $cur == = ]]; then
		cur=
	elif [[ $prev == = ]]; then
		prev=${COMP_WORDS[COMP_CWORD-2]}
	fi
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
`)
	s.line("\t\t%s)", strings.Join(valueFlags(app), " | "))
	s.WriteString(`			((i++))
			[[ ${COMP_WORDS[i]} == = ]] && ((i++)) ;;
		-*) ;;
		*) if [[ -z $command ]]; then command=${COMP_WORDS[i]}; else ((position++)); fi ;;
		esac
	done
	case "$command $prev" in
`)
	for _, f := range flags(app.Node) {
		s.bashFlag("*", f)
	}
	for _, node := range commands(app) {
		for _, name := range names(node) {
			for _, f := range flags(node) {
				s.bashFlag(`"`+name+`"`, f)
			}
		}
	}
	s.line("\tesac")
	s.line("\tif [[ $cur == -* ]]; then")
	s.line("\t\twords=%s", quoted(strings.Join(flagWords(app.Node), " ")))
	s.line("\t\tcase $command in")
	for _, node := range commands(app) {
		if own := flagWords(node); len(own) > 0 {
			s.line("\t\t%s) words+=%s ;;", strings.Join(names(node), " | "), quoted(" "+strings.Join(own, " ")))
		}
	}
	s.line("\t\tesac")
	s.line("\telse")
	s.line("\t\tcase \"$command $position\" in")
	s.line("\t\t' 0') words=%s ;;", quoted(strings.Join(commandWords(app), " ")))
	for _, node := range commands(app) {
		for i, v := range node.Positional {
			for _, name := range names(node) {
				s.bashValue(fmt.Sprintf("\t\t'%s %d')", name, i), v)
			}
		}
	}
	s.line("\t\tesac")
	s.line("\tfi")
	s.line("\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))")
	s.line("}")
	s.line("complete -F _%[1]s %[1]s", app.Name)
	return s.String()
}

// bashFlag is a case for the word behind a flag; also for one that nothing is known about, so that no command is proposed there.
func (s *script) bashFlag(command string, f *kong.Flag) {
	if !takesValue(f) {
		return
	}
	for _, word := range spelled(f) {
		pattern := fmt.Sprintf("\t%s' %s')", command, word)
		if !s.bashValue(pattern, f.Value) {
			s.line("%s return ;;", pattern)
		}
	}
}

// bashValue is a case for a word that has this value, if anything is known about it.
func (s *script) bashValue(pattern string, v *kong.Value) bool {
	switch c := choices(v); {
	case c != nil:
		s.line(`%s COMPREPLY=($(compgen -W %s -- "$cur")); return ;;`, pattern, quoted(strings.Join(c, " ")))
	case v.Tag.Get(tagName) == aFile:
		s.line(`%s compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;`, pattern)
	case v.Tag.Get(tagName) == aDir:
		s.line(`%s compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;`, pattern)
	default:
		return false
	}
	return true
}

// valueFlags are all flags whose value may be the next word.
func valueFlags(app *kong.Application) []string {
	var words []string
	seen := map[string]bool{}
	for _, node := range append([]*kong.Node{app.Node}, commands(app)...) {
		for _, f := range flags(node) {
			for _, word := range spelled(f) {
				if takesValue(f) && !seen[word] {
					seen[word] = true
					words = append(words, word)
				}
			}
		}
	}
	return words
}

func flagWords(node *kong.Node) []string {
	var words []string
	for _, f := range flags(node) {
		words = append(words, "--"+f.Name)
	}
	return words
}

// commandWords are without the aliases: nobody wants to choose between before_stop and before-stop.
func commandWords(app *kong.Application) []string {
	var words []string
	for _, node := range commands(app) {
		words = append(words, node.Name)
	}
	return words
}

func zsh(app *kong.Application) string {
	s := &script{}
	s.line("#compdef %s", app.Name)
	s.line("# Completion of %s for zsh.", app.Name)
	s.line("_%s() {", app.Name)
	s.line("\tlocal curcontext=$curcontext state line ret=1")
	s.line("\tlocal -a commands common own")
	s.line("\tcommands=(")
	for _, node := range commands(app) {
		s.line("\t\t%s", quoted(node.Name+":"+firstLine(node.Help)))
	}
	s.line("\t)")
	s.line("\tcommon=(")
	s.zshFlags(app.Node)
	s.line("\t)")
	s.line("\t_arguments -C $common '1: :->command' '*::: :->argument' && ret=0")
	s.line("\tcase $state in")
	s.line("\tcommand) _describe -t commands command commands && ret=0 ;;")
	s.line("\targument)")
	s.line("\t\twords=($line[1] \"${words[@]}\")")
	s.line("\t\t((CURRENT++))")
	s.line("\t\tcase $line[1] in")
	for _, node := range commands(app) {
		s.line("\t\t%s)", strings.Join(names(node), " | "))
		s.line("\t\t\town=(")
		s.zshFlags(node)
		for i, v := range node.Positional {
			// With an argument of which nothing is known zsh shows its name instead of the flags.
			if action := zshAction(v); strings.TrimSpace(action) != "" {
				s.line("\t\t\t%s", quoted(fmt.Sprintf("%d:%s:%s", i+1, v.Name, action)))
			}
		}
		s.line("\t\t\t) ;;")
	}
	s.line("\t\tesac")
	s.line("\t\t_arguments $common $own && ret=0 ;;")
	s.line("\tesac")
	s.line("\treturn ret")
	s.line("}")
	// Sourced, it registers itself; as a file in fpath, compinit has registered it and calls it.
	s.line("if [[ $funcstack[1] == _%[1]s ]]; then _%[1]s \"$@\"; else compdef _%[1]s %[1]s; fi", app.Name)
	return s.String()
}

var zshEscapes = strings.NewReplacer(`\`, `\\`, "[", `\[`, "]", `\]`, ":", `\:`)

func (s *script) zshFlags(node *kong.Node) {
	for _, f := range flags(node) {
		for _, word := range spelled(f) {
			spec := word
			if f.IsSlice() {
				spec = "*" + spec
			}
			if takesValue(f) {
				spec += "="
			}
			spec += "[" + zshEscapes.Replace(firstLine(f.Help)) + "]"
			if takesValue(f) {
				spec += ":" + zshEscapes.Replace(placeholder(f)) + ":" + zshAction(f.Value)
			}
			s.line("\t\t\t%s", quoted(spec))
		}
	}
}

// zshAction is what completes a value; a blank where nothing is known.
func zshAction(v *kong.Value) string {
	switch c := choices(v); {
	case c != nil:
		return "(" + strings.Join(c, " ") + ")"
	case v.Tag.Get(tagName) == aFile:
		return "_files"
	case v.Tag.Get(tagName) == aDir:
		return "_files -/"
	}
	return " "
}

func fish(app *kong.Application) string {
	s := &script{}
	s.line("# Completion of %s for fish.", app.Name)
	s.line("complete -c %s -f", app.Name)
	for _, f := range flags(app.Node) {
		s.fishFlag(app.Name, "", f)
	}
	for _, node := range commands(app) {
		s.line("complete -c %s -n __fish_use_subcommand -a %s -d %s", app.Name, node.Name, fishQuoted(firstLine(node.Help)))
		when := " -n " + fishQuoted("__fish_seen_subcommand_from "+strings.Join(names(node), " "))
		for _, f := range flags(node) {
			s.fishFlag(app.Name, when, f)
		}
		for _, v := range node.Positional {
			if values := fishValues(v); values != "" {
				s.line("complete -c %s%s%s", app.Name, when, values)
			}
		}
	}
	return s.String()
}

func (s *script) fishFlag(program, when string, f *kong.Flag) {
	out := "complete -c " + program + when + " -l " + f.Name
	if f.Short != 0 {
		out += " -s " + string(f.Short)
	}
	if takesValue(f) {
		out += " -r" + fishValues(f.Value)
	}
	s.line("%s -d %s", out, fishQuoted(firstLine(f.Help)))
}

func fishValues(v *kong.Value) string {
	switch c := choices(v); {
	case c != nil:
		return " -x -a " + fishQuoted(strings.Join(c, " "))
	case v.Tag.Get(tagName) == aFile:
		return " -F"
	case v.Tag.Get(tagName) == aDir:
		return " -x -a '(__fish_complete_directories)'"
	}
	return ""
}

// fishQuoted: inside single quotes fish knows \' and \\ only.
func fishQuoted(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(text) + "'"
}
