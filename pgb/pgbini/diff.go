package pgbini

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Difference is one thing that the file says and the running PgBouncer does not do.
type Difference struct {
	File         string
	Line         int    // 0: it does not stand in the file, and its default is not in force
	Key          string // "pool_mode", or "database app: host"
	Want         string // by the file, or the default; "***" for what may be a secret
	Running      string // in force
	NeedsRestart bool   // RELOAD does not change it
	Problem      string // what is wrong with the line, where that can be told: "not a number"
}

// same tells whether a running value is what PgBouncer makes of one in a file.
func same(key, file, running string) bool {
	if file == running {
		return valueProblem(key, file) == ""
	}
	switch kinds[key] {
	case kindInt:
		a, ok1 := strtol(file)
		b, ok2 := strtol(running)
		return ok1 && ok2 && int32(a) == int32(b) // a C int; what is too large wraps
	case kindUint:
		a, ok1 := strtol(file)
		b, ok2 := strtol(running)
		return ok1 && ok2 && uint32(a) == uint32(b)
	case kindTime:
		a, ok1 := seconds(file)
		b, ok2 := seconds(running)
		return ok1 && ok2 && (a == b || formatG(a) == formatG(b))
	case kindName:
		return strings.EqualFold(file, running)
	case kindUnknown:
		// A later version's: as numbers, where both are.
		a, ok1 := seconds(file)
		b, ok2 := seconds(running)
		if ok1 && ok2 {
			return formatG(a) == formatG(b)
		}
		return strings.EqualFold(file, running)
	}
	return false
}

// Diff compares the file with what is in force ([Pooler.Settings], [Pooler.ShowDatabases]), in the file's order. What SHOW CONFIG and
// SHOW DATABASES do not show is not compared: passwords and a few more parameters of databases, [users], [peers], and a "*" line of which
// no database is in use. A pause of pgbaton shows as a difference of server_login_retry (see [Mark]).
func (f *File) Diff(settings []Setting, databases []Database) []Difference {
	r := newRunning(settings)
	d := &differ{file: f, running: r}
	d.settings()
	d.databases(databases)
	for _, s := range f.sections {
		if problem := r.sectionProblem(s.name); problem != "" {
			d.add(Difference{File: s.file, Line: s.line, Key: "[" + s.name + "]", Problem: problem})
		}
	}
	for i := range f.entries {
		e := &f.entries[i]
		if e.section == "users" || e.section == "peers" {
			if problem := r.problem(e); problem != "" {
				d.add(Difference{File: e.file, Line: e.line, Key: e.label(), Problem: problem})
			}
		}
	}
	order := map[string]int{}
	for i, p := range f.paths {
		if _, ok := order[p]; !ok {
			order[p] = i
		}
	}
	slices.SortStableFunc(d.found, func(a, b Difference) int {
		// Those of no line come last.
		return cmp.Or(-cmp.Compare(min(a.Line, 1), min(b.Line, 1)), cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line))
	})
	return d.found
}

type differ struct {
	file    *File
	running *running
	found   []Difference
}

func (d *differ) add(x Difference) {
	x.Want, x.Running = printable(x.Want), printable(x.Running)
	d.found = append(d.found, x)
}

func (d *differ) settings() {
	inFile := d.file.inFile()
	for _, s := range d.running.list {
		e := inFile[s.Key]
		if e == nil {
			if !elsewhere[s.Key] && s.Default != s.Value && !same(s.Key, s.Default, s.Value) {
				d.add(Difference{File: d.file.Path, Key: s.Key, Want: s.Default, Running: s.Value,
					NeedsRestart: !s.Changeable || kept[s.Key] || kinds[s.Key] == kindUnknown && s.Default == ""})
			}
			continue
		}
		equal := false
		if mayHoldSecret(s.Key) {
			equal = s.Value == e.value && (s.Value == "" || s.sum == e.sum)
		} else {
			equal = same(s.Key, e.value, s.Value)
		}
		if !equal {
			d.add(Difference{File: e.file, Line: e.line, Key: s.Key, Want: e.value, Running: s.Value,
				NeedsRestart: !s.Changeable, Problem: valueProblem(s.Key, e.value)})
		}
	}
	for i := range d.file.entries {
		e := &d.file.entries[i]
		if e.section != "pgbouncer" {
			continue
		}
		if _, ok := d.running.byKey[e.name]; !ok {
			d.add(Difference{File: e.file, Line: e.line, Key: e.label(), Want: e.value, Problem: d.running.problem(e)})
		} else if inFile[e.name] != e && d.running.problem(e) != "" && d.running.byKey[e.name].Changeable {
			// A later line says it again, but PgBouncer stops at this one.
			d.add(Difference{File: e.file, Line: e.line, Key: e.label(), Want: e.value,
				Running: d.running.value(e.name), Problem: d.running.problem(e)})
		}
	}
}

func (d *differ) databases(databases []Database) {
	inFile := map[string]*entry{}
	for i := range d.file.entries {
		if e := &d.file.entries[i]; e.section == "databases" {
			inFile[e.name] = e
		}
	}
	listed := map[string]bool{}
	for _, db := range databases {
		listed[db.Name] = true
		e := inFile[db.Name]
		if e == nil {
			e = inFile["*"]
		}
		switch {
		case e == nil:
			// RELOAD takes out a database whose own line is gone, and leaves one that a "*" line made, also when that is gone
			// (1.18, 1.24, 1.26).
			d.add(Difference{File: d.file.Path, Key: "database " + printable(db.Name), Running: db.Host + ":" + strconv.Itoa(int(db.Port)),
				NeedsRestart: true})
		case !e.conn.bad:
			d.database(e, db)
		}
	}
	for i := range d.file.entries {
		e := &d.file.entries[i]
		if e.section != "databases" {
			continue
		}
		problem := d.running.problem(e)
		switch {
		case e.conn.bad:
			problem = "a syntax error, which PgBouncer finds when a client comes"
		case inFile[e.name] == e && e.name != "*" && !listed[e.name]:
			problem = cmp.Or(problem, "not there")
		}
		if problem != "" {
			d.add(Difference{File: e.file, Line: e.line, Key: e.label(), Problem: problem})
		}
	}
}

// database compares one entry with its line of SHOW DATABASES.
func (d *differ) database(e *entry, db Database) {
	compare := func(param, want, running string, needsRestart bool) {
		if want != running {
			d.add(Difference{File: e.file, Line: e.line, Key: "database " + printable(db.Name) + ": " + param,
				Want: want, Running: running, NeedsRestart: needsRestart})
		}
	}
	text := func(param, otherwise string) string {
		if v, ok := e.conn.get(param); ok {
			return v
		}
		return otherwise
	}
	// Where the entry says nothing, or a number below 0, the pooler's own setting counts.
	number := func(params []string, setting string) string {
		for _, p := range e.conn.pairs {
			if slices.Contains(params, p[0]) {
				if n := atoi(p[1]); n >= 0 {
					return strconv.Itoa(int(n))
				}
			}
		}
		n, _ := strtol(d.running.value(setting))
		return strconv.Itoa(int(int32(n)))
	}
	compare("host", text("host", ""), db.Host, false)
	compare("port", strconv.Itoa(int(uint16(atoi(text("port", "5432"))))), strconv.Itoa(int(db.Port)), false)
	compare("dbname", text("dbname", db.Name), db.Target, false)
	user := text("user", "")
	compare("user", user, db.ForceUser, user == "") // a user that was forced is not given up (all versions)
	compare("pool_mode", strings.ToLower(text("pool_mode", "")), strings.ToLower(db.PoolMode), false)
	compare("pool_size", number([]string{"pool_size"}, "default_pool_size"), strconv.Itoa(db.PoolSize), false)
	compare("min_pool_size", number([]string{"min_pool_size"}, "min_pool_size"), strconv.Itoa(db.MinPoolSize), false)
	compare("reserve_pool", number([]string{"reserve_pool", "reserve_pool_size"}, "reserve_pool_size"), strconv.Itoa(db.ReservePool), false)
	compare("max_db_connections", number([]string{"max_db_connections"}, "max_db_connections"), strconv.Itoa(db.MaxConns), false)
	if db.MaxClients >= 0 {
		compare("max_db_client_connections", number([]string{"max_db_client_connections"}, "max_db_client_connections"),
			strconv.Itoa(db.MaxClients), false)
	}
	if db.ServerLifetime >= 0 {
		lifetime, running := int64(atoi(text("server_lifetime", "0"))), strconv.Itoa(db.ServerLifetime)
		want := strconv.FormatInt(lifetime, 10)
		if lifetime <= 0 {
			global, _ := seconds(d.running.value("server_lifetime"))
			// SHOW CONFIG rounds it to six digits.
			want, running = formatG(math.Trunc(global)), formatG(float64(db.ServerLifetime))
		}
		compare("server_lifetime", want, running, false)
	}
	if db.LoadBalance != "" {
		compare("load_balance_hosts", strings.ToLower(text("load_balance_hosts", "round-robin")), db.LoadBalance, false)
	}
}
