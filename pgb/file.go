package pgb

import "fmt"

// FileError says why PgBouncer would refuse a configuration file.
type FileError struct {
	File    string // as PgBouncer calls it: without the root that it was read through
	Line    int    // from 1; 0: the file as a whole
	Key     string // may be empty
	Problem string // without values, which may be secrets
	Err     error  // of the system, where there is one
}

func (e *FileError) Error() string {
	s := e.File
	if e.Line > 0 {
		s += fmt.Sprintf(":%d", e.Line)
	}
	if e.Key != "" {
		s += ": " + e.Key
	}
	s += ": " + e.Problem
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *FileError) Unwrap() error { return e.Err }

// File is a pgbouncer.ini with what it includes.
type File struct {
	Path string
}

// ReadFile reads a pgbouncer.ini.
func ReadFile(path, root string) (*File, error) { return &File{Path: path}, nil }

// Difference is one thing that the file says and the running PgBouncer does not do.
type Difference struct {
	File         string
	Line         int    // 0: the key is not in the file, and its default is not in force
	Key          string // "pool_mode", or "database app: host"
	Want         string // by the file, or the default; "***" for what may be a secret
	Running      string // in force
	NeedsRestart bool   // RELOAD does not change it
	Problem      string // why PgBouncer cannot take it from the file, where that is seen: "not a number"
}

func (d Difference) String() string {
	s := d.File
	if d.Line > 0 {
		s += fmt.Sprintf(":%d", d.Line)
	}
	s += fmt.Sprintf(": %s = %q, in force: %q", d.Key, d.Want, d.Running)
	if d.Problem != "" {
		s += " (" + d.Problem + ")"
	}
	return s
}

// Diff compares.
func (f *File) Diff(settings []Setting, databases []Database) []Difference { return nil }
