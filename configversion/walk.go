package configversion

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// hop is a name on the way to a file whose change may lead elsewhere: a symbolic link, the file itself, or what is missing.
type hop struct {
	dir    string // without symbolic links
	name   string
	target string // of a link
}

func (h hop) path() string { return filepath.Join(h.dir, h.name) }

// maxLinks is Linux' own limit (path_resolution(7)).
const maxLinks = 40

// walk follows path as the kernel does and returns what it comes by, at least one hop.
func walk(path string) []hop {
	path, err := filepath.Abs(path)
	if err != nil {
		return []hop{{dir: "/", name: path}}
	}
	var (
		hops  []hop
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
		info, err := os.Lstat(next)
		switch {
		case err == nil && info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(next)
			hops = append(hops, hop{dir, name, target})
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
			return append(hops, hop{dir, name, ""})
		}
	}
	// The path, or what a link says, ends in a directory.
	return append(hops, hop{filepath.Dir(dir), filepath.Base(dir), ""})
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
