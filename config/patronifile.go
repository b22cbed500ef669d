package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pgbaton/pgbaton/config/yamlfile"
	"github.com/pgbaton/pgbaton/file"
)

// MaxPatroniFile is how many bytes of one of Patroni's files are read: more than anybody's has.
const MaxPatroniFile = 4 << 20

const (
	maxPatroniFiles = 1000
	maxPatroniDepth = 50
)

// PatroniFiles are the files that Patroni reads when it is started with path (config.py, 3.0 to 4.1): the file itself, or every *.yml
// and *.yaml of a folder, in the order of their names; what is no regular file is passed over there.
func PatroniFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries { // by name
		name := filepath.Join(path, e.Name())
		if ext := filepath.Ext(e.Name()); ext != ".yml" && ext != ".yaml" {
			continue
		}
		if info, err := os.Stat(name); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if files = append(files, name); len(files) > maxPatroniFiles {
			return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("has more than 1000 files of YAML in it")}
		}
	}
	return files, nil
}

// patroniValue is one value of Patroni's configuration, or a section.
type patroniValue struct {
	text    string // as Python writes it
	quoted  bool   // a string with quotes
	list    bool   // or a value that nothing here looks at
	section patroniSection
	file    string // "" for a variable
	line    int
}

type patroniSection map[string]*patroniValue

// at is the value at a path; nil when there is none.
func (s patroniSection) at(path ...string) *patroniValue {
	var v *patroniValue
	for i, step := range path {
		if i > 0 {
			if v == nil {
				return nil
			}
			s = v.section
		}
		v = s[step]
	}
	return v
}

// text is a value's text; "" when there is none.
func (s patroniSection) text(path ...string) string {
	if v := s.at(path...); v != nil && v.section == nil && !v.list {
		return v.text
	}
	return ""
}

// isTrue is Python's truth of a value: "false" in quotes is a text and true.
func (s patroniSection) isTrue(path ...string) bool {
	v := s.at(path...)
	switch {
	case v == nil:
		return false
	case v.section != nil:
		return len(v.section) > 0
	case v.quoted || v.list:
		return v.text != "" || v.list
	}
	return v.text != "" && v.text != "False" && v.text != "0" && v.text != "0.0"
}

// patch puts other over s as Patroni does (utils.py, patch_config): sections are merged, null takes a key away, everything else is
// replaced.
func (s patroniSection) patch(other patroniSection, depth int) {
	if depth > maxPatroniDepth {
		return // a section within itself
	}
	for key, v := range other {
		old := s[key]
		switch {
		case v == nil:
			delete(s, key)
		case old != nil && old.section != nil && v.section != nil:
			old.section.patch(v.section, depth+1)
		default:
			s[key] = v
		}
	}
}

// patroniReader builds sections. An alias is the same section as its anchor, as it is the same dictionary in Python.
type patroniReader struct {
	file string
	seen map[yamlfile.Value]*patroniValue
}

func (r patroniReader) section(v yamlfile.Value) (patroniSection, bool) {
	entries, ok := v.Mapping()
	if !ok {
		return nil, false
	}
	out := patroniSection{}
	for _, e := range entries {
		if key, ok := e.Key.Python(); ok {
			out[key] = r.value(e.Value)
		}
	}
	return out, true
}

// value is nil for null.
func (r patroniReader) value(v yamlfile.Value) *patroniValue {
	target := v.Target()
	if known, ok := r.seen[target]; ok {
		return known
	}
	if text, ok := v.Python(); ok {
		return &patroniValue{text: text, quoted: v.IsQuoted(), file: r.file, line: v.Line()}
	}
	if v.IsNull() {
		return nil
	}
	out := &patroniValue{file: r.file, line: v.Line(), list: true}
	r.seen[target] = out // before what is in it, which may be itself
	if section, ok := r.section(v); ok {
		out.section, out.list = section, false
	}
	return out
}

// readPatroniText reads a text as PyYAML does. What stands before the first line that is no YAML counts, and the error is told with it.
func readPatroniText(name string, text []byte) (patroniSection, error) {
	const attempts = 5
	var first error
	for range attempts {
		document, err := yamlfile.Parse(name, text)
		if first == nil {
			first = err
		}
		if err == nil {
			section, ok := patroniReader{file: name, seen: map[yamlfile.Value]*patroniValue{}}.section(document.Root)
			if !ok && first == nil {
				first = &file.Problem{File: name, Problem: "is not a configuration of Patroni: it has no \"key: value\" at its top"}
			}
			return section, first
		}
		at, ok := errors.AsType[*file.Problem](err)
		if !ok || at.Line <= 1 {
			return nil, first
		}
		lines := strings.SplitAfterN(string(text), "\n", at.Line)
		text = []byte(strings.Join(lines[:min(len(lines), at.Line-1)], ""))
	}
	return nil, first
}

// patroniVariables are the variables that Patroni (3.0 to 4.1) reads for what is used here, and where it puts them. Empty ones do not
// count.
func patroniVariables() map[string][]string {
	variables := map[string][]string{
		"NAME": {"name"}, "SCOPE": {"scope"}, "POSTGRESQL_LISTEN": {"postgresql", "listen"},
		"RESTAPI_USERNAME": {"restapi", "authentication", "username"}, "RESTAPI_PASSWORD": {"restapi", "authentication", "password"},
		"CTL_USERNAME": {"ctl", "authentication", "username"}, "CTL_PASSWORD": {"ctl", "authentication", "password"},
	}
	for _, key := range []string{"listen", "connect_address", "certfile", "cafile"} {
		variables["RESTAPI_"+strings.ToUpper(key)] = []string{"restapi", key}
	}
	for _, key := range []string{"cacert", "certfile", "keyfile"} {
		variables["CTL_"+strings.ToUpper(key)] = []string{"ctl", key}
	}
	for _, key := range slices.Concat([]string{"username"}, superuserKeys()) {
		variables["SUPERUSER_"+strings.ToUpper(key)] = []string{"postgresql", "authentication", "superuser", key}
	}
	return variables
}

// superuserKeys are what Patroni's superuser may have besides its name, of what is known to the driver.
func superuserKeys() []string {
	return []string{"password", "sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "channel_binding", "sslnegotiation"}
}

// patroniFromVariables is what the variables say.
func patroniFromVariables(lookup func(string) (string, bool)) patroniSection {
	out := patroniSection{}
	for name, path := range patroniVariables() {
		text, ok := lookup("PATRONI_" + name)
		if !ok || text == "" {
			continue
		}
		at := out
		for _, step := range path[:len(path)-1] {
			if at[step] == nil {
				at[step] = &patroniValue{section: patroniSection{}}
			}
			at = at[step].section
		}
		at[path[len(path)-1]] = &patroniValue{text: text, quoted: true}
	}
	return out
}
