package pgbini

// Target is a line of [databases]: where PgBouncer takes the clients of a name. Host is "" for the Unix socket of this machine.
type Target struct{ Name, Host string }

// Targets are the lines of [databases], in their order. The line of which a "*" makes databases at run time is among them.
func (f *File) Targets() []Target {
	var targets []Target
	for i := range f.entries {
		e := &f.entries[i]
		if e.section != "databases" || e.conn == nil {
			continue
		}
		host, _ := e.conn.get("host")
		targets = append(targets, Target{e.name, host})
	}
	return targets
}
