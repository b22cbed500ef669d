package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// DatabasesFile is where the entries of a pooler stand that is on a member, as the member and its pooler see it.
const DatabasesFile = "/etc/pgbouncer/databases.ini"

// localEntries lead to the member's own server.
const localEntries = `; the member's own server
postgres = host=/run/postgresql dbname=postgres
readers = host=/run/postgresql dbname=postgres
`

// besideBinds are what a member and the pooler on it share: sockets, and the pooler's configuration.
func (l *Lab) besideBinds(index int) []bind {
	host := func(what string) string { return filepath.Join(l.dir, fmt.Sprintf("%s-p%d", what, index+1)) }
	return []bind{{host("etc"), "/etc/pgbouncer", false}, {host("postgresql"), "/run/postgresql", false},
		{host("pgbouncer"), "/run/pgbouncer", false}}
}

func (l *Lab) prepareBeside() error {
	for i := range l.poolers {
		for _, b := range l.besideBinds(i) {
			if err := errors.Join(os.MkdirAll(b.host, 0o755), os.Chown(b.host, l.uid, l.gid)); err != nil {
				return err
			}
		}
		for name, text := range l.opts.BesideFiles {
			path := filepath.Join(l.besideBinds(i)[0].host, name)
			if err := errors.Join(os.WriteFile(path, []byte(text), 0o640), os.Chown(path, l.uid, l.gid)); err != nil {
				return err
			}
		}
	}
	return nil
}

// DatabasesPath is the host path of a pooler's [DatabasesFile].
func (p *Pooler) DatabasesPath() string { return filepath.Join(p.etc, filepath.Base(DatabasesFile)) }

// Front is the address of the HAProxy in front of the poolers; port 6432 leads to the leader's.
func (l *Lab) Front() string { return l.address(6) }

// frontConfig is HAProxy's, with what [Options.Front] has made.
const frontConfig = `global
  stats socket ipv4@%[1]s:9999 level admin
  log stderr format raw local0 info
` + haproxyDefaults

func (l *Lab) startFront() error {
	s, err := l.container("front")
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, frontConfig, l.Front())
	b.WriteString(l.opts.Front(l))
	etc := filepath.Join(l.dir, "etc-front")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(etc, "haproxy.cfg"), []byte(b.String()), 0o644); err != nil {
		return err
	}
	s.binds = append(s.binds, bind{etc, "/etc/lab", true})
	s.argv = []string{"haproxy", "-db", "-f", "/etc/lab/haproxy.cfg"}
	l.front, err = s.start()
	return err
}
