package file

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Hop is a name on the way to a file whose change may lead elsewhere: a symbolic link, the file itself, or what is missing.
type Hop struct {
	Dir    string // without symbolic links; inside of the root
	Name   string // in Dir
	Target string // of a symbolic link, as it is written there
}

// Path is the hop's path, inside of the root.
func (h Hop) Path() string { return filepath.Join(h.Dir, h.Name) }

// maxLinks is Linux' own limit (path_resolution(7)).
const maxLinks = 40

// Walk follows a path as the kernel does and returns what it comes by, at least one hop. The last one is the file, what is missing, or
// the link after which the kernel gives up. A relative path begins at the working directory.
//
// root is the folder in which the path and its links are followed, as for a process with that root: "/proc/PID/root", or
// "/proc/self/fd/N" of an open folder. "" is our own; any other root needs an absolute path. A root that somebody else can write to may
// change while it is looked at: what is returned then is where a path led, and no promise of where it leads.
func Walk(root, path string) []Hop {
	if root == "" {
		absolute, err := filepath.Abs(path)
		if err != nil {
			return []Hop{{Dir: "/", Name: path}}
		}
		path = absolute
	}
	var (
		hops  []Hop
		dir   = "/"
		rest  = split(path)
		links int
	)
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			dir = filepath.Dir(dir)
			continue
		}
		next := filepath.Join(dir, name)
		info, err := os.Lstat(root + next)
		switch {
		case err == nil && info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(root + next)
			hops = append(hops, Hop{dir, name, target})
			if links++; err != nil || target == "" || links > maxLinks {
				return hops
			}
			if filepath.IsAbs(target) {
				dir = "/"
			}
			rest = append(split(target), rest...)
		case err == nil && info.IsDir() && len(rest) > 0:
			dir = next
		default:
			return append(hops, Hop{dir, name, ""})
		}
	}
	// The path, or what a link says, ends in a directory.
	return append(hops, Hop{filepath.Dir(dir), filepath.Base(dir), ""})
}

func split(path string) []string {
	var names []string
	for name := range strings.SplitSeq(path, "/") {
		if name != "" && name != "." {
			names = append(names, name)
		}
	}
	return names
}
