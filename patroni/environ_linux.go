package patroni

import (
	"os"
	"strings"

	"github.com/pgbaton/pgbaton/process"
)

// Environ are the PATRONI_* variables that Patroni was started with, by name. Patroni takes them out of its environment when it has read
// them (config.py, 3.0 to 4.1), so that what it starts has none of them. It is the nearest Patroni above this process, or without one the
// only one that runs here as our user, as [FindProcess] finds it with config; nil when there is none, or it cannot be looked into. The
// values may be secrets. It does not block.
func Environ(config string) map[string]string {
	for _, pid := range process.Ancestors(os.Getpid()) {
		p, err := process.Open(pid)
		if err != nil {
			continue
		}
		args, err := p.Args()
		if _, is := arguments(args); err == nil && is {
			found := variables(p)
			p.Close()
			return found
		}
		p.Close()
	}
	p, err := FindProcess(config)
	if err != nil {
		return nil
	}
	defer p.Close()
	return variables(p.process)
}

func variables(p *process.Process) map[string]string {
	if uid, err := p.UID(); err != nil || uid != os.Geteuid() {
		return nil
	}
	all, err := p.Environ()
	if err != nil {
		return nil
	}
	out := map[string]string{}
	for _, one := range all {
		if name, v, ok := strings.Cut(one, "="); ok && strings.HasPrefix(name, "PATRONI_") {
			out[name] = v
		}
	}
	return out
}
