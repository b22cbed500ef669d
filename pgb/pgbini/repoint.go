package pgbini

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/process"
)

// Address is where an entry of [databases] leads.
type Address struct {
	Host string // a name, an IP address, or the folder of a Unix socket; "" is PgBouncer's own default folder
	Port uint16
}

// String is as in the file.
func (a Address) String() string { return "host=" + a.Host + " port=" + strconv.Itoa(int(a.Port)) }

// defaultPort is PgBouncer's for an entry that says none (1.18 to 1.26).
const defaultPort = 5432

// DatabaseEntry is a line of [databases].
type DatabaseEntry struct {
	Name string // "*" for all others
	Address
	File string // as [File.Paths] has it
	Line int
}

// Databases are the lines of [databases], in the order in which PgBouncer reads them. Of several with one name the last one counts.
func (f *File) Databases() []DatabaseEntry {
	var all []DatabaseEntry
	for i := range f.entries {
		if e := &f.entries[i]; e.section == "databases" {
			all = append(all, DatabaseEntry{Name: e.name, Address: e.conn.address(), File: e.file, Line: e.line})
		}
	}
	return all
}

// DatabaseEntries are those with this name.
func (f *File) DatabaseEntries(name string) []DatabaseEntry {
	return slices.DeleteFunc(f.Databases(), func(e DatabaseEntry) bool { return e.Name != name })
}

// DatabaseNames are those that [databases] has lines for.
func (f *File) DatabaseNames() []string {
	var names []string
	for _, e := range f.Databases() {
		if !slices.Contains(names, e.Name) {
			names = append(names, e.Name)
		}
	}
	return names
}

func (c *connString) address() Address {
	a := Address{Port: defaultPort}
	a.Host, _ = c.get("host")
	if port, ok := c.get("port"); ok {
		a.Port = uint16(atoi(port))
	}
	return a
}

// Reads reports under which name of [File.Paths] this file is read that is at the path file; root is what [ReadFile] was given.
// Symbolic links are followed. "" says that no %include reaches it.
func (f *File) Reads(file, root string) string {
	want := resolved("", file)
	reader := fileReader{file: f, root: root}
	for i, name := range f.paths {
		candidates := []string{name}
		if i > 0 {
			candidates = reader.lookFor(name)
		} else if cwd, ok := process.WorkingDirectory(root); ok && !path.IsAbs(name) {
			candidates = []string{path.Join(cwd, name)}
		}
		if slices.ContainsFunc(candidates, func(c string) bool { return resolved(root, c) == want }) {
			return name
		}
	}
	return ""
}

// resolved is a path that has no symbolic link in it. A root that is the same as ours changes nothing; another one is seen through
// /proc, where a path has the same name as in the root itself.
func resolved(root, name string) string {
	if !path.IsAbs(name) {
		root = ""
	}
	hops := file.Walk(strings.TrimSuffix(root, "/"), name)
	return hops[len(hops)-1].Path()
}

// plainHost are hosts that PgBouncer reads back as they are written, without quotes.
var plainHost = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_./:@%-]{1,255}$`) })

// Repoint is the text of a file with host and port of the entries changed that stand in these lines, and not one byte of anything else. An
// entry that has no port and is to have 5432 gets none. The lines are those of [File.DatabaseEntries] of the same text: a line that
// says something else is an error, and so is a host that would need quotes. lines may be in any order.
func Repoint(text []byte, lines []DatabaseEntry, to Address) ([]byte, error) {
	if to.Host == "" || !plainHost().MatchString(to.Host) || to.Port == 0 {
		return nil, fmt.Errorf("not an address that an entry can have: %q", printable(to.String()))
	}
	split := bytes.SplitAfter(text, []byte("\n"))
	for _, entry := range lines {
		fail := func(problem string) error {
			return &file.Problem{File: entry.File, Line: entry.Line, Name: "database " + printable(entry.Name), Problem: problem}
		}
		if entry.Line < 1 || entry.Line > len(split) {
			return nil, fail("is not there any more")
		}
		line := string(split[entry.Line-1])
		begin, end, ok := valueOf(line, entry.Name)
		if !ok {
			return nil, fail("is not there any more")
		}
		value, err := repointed(line[begin:end], to)
		if err != nil {
			return nil, fail(err.Error())
		}
		split[entry.Line-1] = []byte(line[:begin] + value + line[end:])
	}
	return bytes.Join(split, nil), nil
}

// valueOf is where the value of a line "name = value" stands, as the parser reads it.
func valueOf(line, name string) (begin, end int, ok bool) {
	pos := 0
	for pos < len(line) && isspace(line[pos]) {
		pos++
	}
	start := pos
	for pos < len(line) && isKey(line[pos]) {
		pos++
	}
	if line[start:pos] != name {
		return 0, 0, false
	}
	for pos < len(line) && isblank(line[pos]) {
		pos++
	}
	if pos >= len(line) || line[pos] != '=' {
		return 0, 0, false
	}
	pos++
	for pos < len(line) && isblank(line[pos]) {
		pos++
	}
	end = len(line)
	for end > pos && line[end-1] < 0x80 && isspace(line[end-1]) {
		end--
	}
	return pos, end, true
}

// repointed is a connection string that leads elsewhere.
func repointed(conn string, to Address) (string, error) {
	pairs, err := scanConnString(conn)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	pos, hosts, ports := 0, 0, 0
	replace := func(p connPair, value string) {
		b.WriteString(conn[pos:p.from] + value)
		pos = p.to
	}
	for _, p := range pairs {
		switch p.key {
		case "host":
			hosts++
			replace(p, to.Host)
		case "port":
			ports++
			replace(p, strconv.Itoa(int(to.Port)))
		}
	}
	b.WriteString(conn[pos:])
	out := b.String()
	if ports == 0 && to.Port != defaultPort {
		out = strings.TrimRight("port="+strconv.Itoa(int(to.Port))+" "+out, " ")
	}
	if hosts == 0 {
		out = strings.TrimRight("host="+to.Host+" "+out, " ")
	}
	return out, sameBut(conn, out, to)
}

// sameBut makes sure that a connection string says what another one does, apart from the address.
func sameBut(before, after string, to Address) error {
	rest := func(conn string) (pairs [][2]string, err error) {
		scanned, err := scanConnString(conn)
		for _, p := range scanned {
			if p.key != "host" && p.key != "port" {
				pairs = append(pairs, [2]string{p.key, p.value})
			}
		}
		return pairs, err
	}
	was, err := rest(before)
	if err != nil {
		return err
	}
	is, err := rest(after)
	if err != nil {
		return err
	}
	parsed, err := parseConnString(after)
	if err != nil {
		return err
	}
	if !slices.Equal(was, is) || parsed.address() != to {
		return errConnString
	}
	return nil
}
