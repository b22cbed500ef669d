package pgb

import "errors"

// ErrNoProcess says that no pgbouncer of this user runs here.
var ErrNoProcess = errors.New("no pgbouncer process")

// OnlyProcess opens the only pgbouncer process of a user.
func OnlyProcess(uid int) (*Process, error) { return nil, ErrNoProcess }

// ConfigFile is the file that the process was started with.
func (p *Process) ConfigFile() (path, root string, err error) { return "", "", ErrNoProcess }

// PeerConsole is a pooler for the process's own Unix socket.
func (p *Process) PeerConsole(file *File) (*Pooler, error) { return nil, ErrNoProcess }
