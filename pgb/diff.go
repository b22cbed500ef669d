package pgb

import (
	"cmp"
	"fmt"
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

// kind is how PgBouncer reads and shows a setting.
type kind int

const (
	kindUnknown kind = iota
	kindInt
	kindUint
	kindTime
	kindText
	kindName // one of a list
)

var (
	poolModes = []string{"session", "transaction", "statement"}
	sslModes  = []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
	authTypes = []string{"any", "trust", "plain", "md5", "cert", "hba", "pam", "ldap", "scram-sha-256"}
)

// names are the lists. pam and ldap (since 1.25) are missing in some builds.
var names = map[string][]string{
	"pool_mode": poolModes, "client_tls_sslmode": sslModes, "server_tls_sslmode": sslModes, "auth_type": authTypes,
}

// kinds are the settings of 1.18 to 1.26.
var kinds = func() map[string]kind {
	m := map[string]kind{"max_packet_size": kindUint}
	for k := range names {
		m[k] = kindName
	}
	add := func(kind kind, keys string) {
		for _, k := range strings.Fields(keys) {
			m[k] = kind
		}
	}
	add(kindInt, `application_name_add_host default_pool_size disable_pqexec listen_backlog listen_port log_connections
		log_disconnections log_pooler_errors log_stats max_client_conn max_db_client_connections max_db_connections
		max_prepared_statements max_user_client_connections max_user_connections min_pool_size peer_id pkt_buf query_wait_notify
		reserve_pool_size sbuf_loopcnt scram_iterations server_fast_close server_reset_query_always server_round_robin
		so_reuseport stats_period syslog tcp_defer_accept tcp_keepalive tcp_keepcnt tcp_keepidle tcp_keepintvl
		tcp_socket_buffer tcp_user_timeout unix_socket_mode verbose`)
	add(kindTime, `autodb_idle_timeout cancel_wait_timeout client_idle_timeout client_login_timeout dns_max_ttl dns_nxdomain_ttl
		dns_zone_check_period idle_transaction_timeout pool_idle_timeout query_timeout query_wait_timeout
		reserve_pool_timeout server_check_delay server_connect_timeout server_idle_timeout server_lifetime server_login_retry
		suspend_timeout transaction_timeout`)
	add(kindText, `admin_users auth_dbname auth_file auth_hba_file auth_ident_file auth_ldap_options auth_query auth_user
		client_tls13_ciphers client_tls_ca_file client_tls_cert_file client_tls_ciphers client_tls_dheparams
		client_tls_ecdhcurve client_tls_key_file client_tls_protocols conffile ignore_startup_parameters job_name
		listen_addr logfile login_notify_message pidfile resolv_conf server_check_query server_reset_query
		server_tls13_ciphers server_tls_ca_file server_tls_cert_file server_tls_ciphers server_tls_key_file
		server_tls_protocols stats_users syslog_facility syslog_ident track_extra_parameters unix_socket_dir
		unix_socket_group user`)
	return m
}()

// kept are the settings without a default: taken out of the file, they stay what they were until a restart (1.18, 1.24, 1.26).
var kept = map[string]bool{
	"auth_dbname": true, "auth_file": true, "auth_ident_file": true, "auth_ldap_options": true, "auth_user": true,
	"client_tls13_ciphers": true, "server_tls13_ciphers": true,
}

// elsewhere are the settings that the command line sets, too: not in the file says nothing.
var elsewhere = map[string]bool{"user": true, "verbose": true, "conffile": true}

// Parameters of connection strings, by section, with a setting that came in the same release: which release it is, SHOW CONFIG tells
// by what it has. A parameter without one is of 1.18.
const (
	in119 = "auth_dbname"
	in121 = "max_prepared_statements"
	in123 = "auth_ident_file"
	in124 = "max_db_client_connections"
	in125 = "transaction_timeout"
	in126 = "pool_idle_timeout"
)

var (
	databaseParams = map[string]string{
		"dbname": "", "host": "", "port": "", "user": "", "password": "", "auth_user": "", "client_encoding": "", "datestyle": "",
		"timezone": "", "pool_size": "", "min_pool_size": "", "reserve_pool": "", "max_db_connections": "", "pool_mode": "",
		"connect_query": "", "application_name": "",
		"auth_dbname":     in119,
		"auth_query":      in121, // 1.22, whose settings are those of 1.21: better taken for right there than for wrong here
		"server_lifetime": in123, "load_balance_hosts": in124, "reserve_pool_size": in124, "max_db_client_connections": in124,
		"query_wait_timeout": in126,
	}
	userParams = map[string]string{
		"pool_mode": "", "max_user_connections": "", "pool_size": in123, "reserve_pool_size": in124,
		"client_idle_timeout": in124, "query_timeout": in124, "idle_transaction_timeout": in124,
		"max_user_client_connections": in124, "transaction_timeout": in125, "query_wait_timeout": in126,
	}
	peerParams = map[string]string{"host": "", "port": "", "pool_size": ""}
)

// running is SHOW CONFIG.
type running struct {
	list  []Setting
	byKey map[string]Setting
	newer bool // than what is known here: be lenient
}

func newRunning(settings []Setting) *running {
	r := &running{list: settings, byKey: make(map[string]Setting, len(settings))}
	for _, s := range settings {
		r.byKey[s.Key] = s
		r.newer = r.newer || kinds[s.Key] == kindUnknown
	}
	return r
}

func (r *running) value(key string) string { return r.byKey[key].Value }

// Check says what the version whose settings these are (see [Pooler.Settings]) refuses at RELOAD in a file that has no
// error of syntax: the first unknown key or section, or value that does not fit, as a [*FileError]. There PgBouncer stops reading; what
// stands before it is in force then, and what stands after it is not (1.18 to 1.26). So a file is worth a check before it
// is reloaded. Settings that RELOAD does not touch are not looked at: PgBouncer would not start with them, and [File.Diff] says so.
// Of a version that is newer than 1.26, keys that are not known here are taken to be right.
func (f *File) Check(settings []Setting) error {
	r := newRunning(settings)
	var first *FileError
	found := func(at place, key, problem string) {
		// Sections stand apart from their entries, and a file may be included twice; the first that is found in its list is.
		if first == nil || at.file == first.File && at.line < first.Line {
			first = &FileError{File: at.file, Line: at.line, Key: key, Problem: problem}
		}
	}
	for i := range f.entries {
		e := &f.entries[i]
		if problem := r.problem(e); problem != "" {
			if s, ok := r.byKey[e.name]; e.section == "pgbouncer" && ok && !s.Changeable {
				continue
			}
			found(e.place, e.label(), problem)
			break
		}
	}
	for _, s := range f.sections {
		if problem := r.sectionProblem(s.name); problem != "" {
			found(s, "["+s.name+"]", problem)
			break
		}
	}
	if first == nil {
		return nil
	}
	return first
}

func (r *running) sectionProblem(name string) string {
	_, peers := r.byKey["peer_id"]
	if name == "peers" && peers || r.newer {
		return ""
	}
	return "this version has no such section"
}

// problem is what this version has against an entry.
func (r *running) problem(e *entry) string {
	var params map[string]string
	switch e.section {
	case "pgbouncer":
		if _, ok := r.byKey[e.name]; !ok {
			return "this version has no such setting"
		}
		if mayHoldSecret(e.name) {
			return ""
		}
		if _, ldap := r.byKey["auth_ldap_options"]; e.name == "auth_type" && strings.EqualFold(e.value, "ldap") && !ldap {
			return "this version has no ldap"
		}
		return valueProblem(e.name, e.value)
	case "databases":
		if e.name == "*" {
			return "" // PgBouncer does not look into it
		}
		params = databaseParams
		if mode, ok := e.conn.get("load_balance_hosts"); ok && !containsFold([]string{"disable", "round-robin"}, mode) {
			return "not a load_balance_hosts"
		}
	case "users":
		params = userParams
	case "peers":
		params = peerParams
	default:
		return "" // told of the section
	}
	for _, p := range e.conn.pairs {
		since, known := params[p[0]]
		if _, has := r.byKey[since]; known && (since == "" || has) || !known && r.newer {
			continue
		}
		if e.conn.secret {
			// It may be a piece of the secret.
			return "this version does not know one of its parameters"
		}
		return fmt.Sprintf("this version does not know the parameter %q", printable(p[0]))
	}
	return ""
}

// valueProblem is what PgBouncer has against a value, "" for nothing or not known.
func valueProblem(key, value string) string {
	switch kinds[key] {
	case kindInt, kindUint:
		if _, ok := strtol(value); !ok {
			return "not a whole number"
		}
	case kindTime:
		if _, ok := seconds(value); !ok {
			return "not a number of seconds"
		}
	case kindName:
		if !containsFold(names[key], value) {
			return "not one of " + strings.Join(names[key], ", ")
		}
	case kindText:
		if key == "auth_dbname" && value == adminDatabase {
			return "cannot be the admin console"
		}
	}
	return ""
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

// Diff compares the file with what is in force ([Pooler.Settings], [Pooler.ShowDatabases]), in the file's order. What SHOW CONFIG and SHOW
// DATABASES do not show is not compared: passwords and a few more parameters of databases, [users], [peers], and a "*" line
// of which no database is in use. A pause of pgbaton shows as a difference of server_login_retry (see [Mark]).
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

// inFile are the lines that count. A further [pgbouncer] takes back all that stood in those before, except for what has no default.
func (f *File) inFile() map[string]*entry {
	m := map[string]*entry{}
	next := 0
	for i := range f.entries {
		for next < len(f.main) && f.main[next] <= i {
			f.forget(m)
			next++
		}
		if e := &f.entries[i]; e.section == "pgbouncer" {
			m[e.name] = e
		}
	}
	if next < len(f.main) {
		f.forget(m)
	}
	return m
}

func (f *File) forget(m map[string]*entry) {
	for k := range m {
		if !kept[k] && !elsewhere[k] {
			delete(m, k)
		}
	}
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
			d.add(Difference{File: e.file, Line: e.line, Key: s.Key, Want: e.value, Running: s.Value, NeedsRestart: !s.Changeable, Problem: valueProblem(s.Key, e.value)})
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
			d.add(Difference{File: e.file, Line: e.line, Key: e.label(), Want: e.value, Running: d.running.value(e.name), Problem: d.running.problem(e)})
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
			d.add(Difference{File: e.file, Line: e.line, Key: "database " + printable(db.Name) + ": " + param, Want: want, Running: running, NeedsRestart: needsRestart})
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
		compare("max_db_client_connections", number([]string{"max_db_client_connections"}, "max_db_client_connections"), strconv.Itoa(db.MaxClients), false)
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

func containsFold(list []string, s string) bool {
	return slices.ContainsFunc(list, func(x string) bool { return strings.EqualFold(x, s) })
}

// strtol is C's with base 0: "0x10", "010"; "0b11" is one with a C library of 2023 and later only, and where it was not
// taken, the running value shows it. What is too large is the largest.
func strtol(s string) (int64, bool) {
	s = strings.TrimLeftFunc(s, func(c rune) bool { return c < 0x80 && isspace(byte(c)) })
	digits := strings.TrimLeft(s, "+-")
	if len(s)-len(digits) > 1 || strings.ContainsAny(s, "_oO") {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil && (n == math.MaxInt64 || n == math.MinInt64) {
		return n, true
	}
	return n, err == nil
}

// atoi is C's: what is no number at its beginning is 0.
func atoi(s string) int32 {
	s = strings.TrimLeftFunc(s, func(c rune) bool { return c < 0x80 && isspace(byte(c)) })
	end := 0
	if end < len(s) && (s[end] == '+' || s[end] == '-') {
		end++
	}
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	n, _ := strconv.ParseInt(s[:end], 10, 64) // 0, or the largest
	return int32(n)
}

// strtonum is OpenBSD's, for ids of peers.
func strtonum(s string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimLeftFunc(s, func(c rune) bool { return c < 0x80 && isspace(byte(c)) }), 10, 64)
	return n, err == nil
}

// seconds is a time as PgBouncer keeps it: whole microseconds.
func seconds(s string) (float64, bool) {
	s = strings.TrimLeftFunc(s, func(c rune) bool { return c < 0x80 && isspace(byte(c)) })
	if strings.Contains(s, "_") {
		return 0, false
	}
	lower := strings.ToLower(strings.TrimLeft(s, "+"))
	if strings.HasPrefix(lower, "0x") && !strings.Contains(lower, "p") {
		s += "p0" // Go wants the exponent, C does not
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || v < 0 || v == 0 && strings.ContainsAny(mantissa(lower), "123456789") {
		return 0, false // also what is too large or too small: PgBouncer refuses both
	}
	if math.IsNaN(v) || v > 9e12 {
		return v, true // PgBouncer makes something else of it, which the comparison then shows
	}
	return math.Trunc(v*1e6) / 1e6, true
}

func mantissa(s string) string {
	if i := strings.IndexAny(s, "ep"); i >= 0 && !strings.HasPrefix(s, "0x") {
		return s[:i]
	}
	return s
}

// formatG is C's %g.
func formatG(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }
