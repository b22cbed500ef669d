package pgbini

// AdminDatabase is the name of the admin console.
const AdminDatabase = "pgbouncer"

// Setting is a line of SHOW CONFIG.
type Setting struct {
	Key        string
	Value      string // what is in force; "***" where it may hold a secret
	Default    string // of this version; "" also where there is none
	Changeable bool   // by RELOAD; the others are read at the start only

	sum digest // of the value that Value does not show
}

// NewSetting is a line of SHOW CONFIG; a value that may be a secret is not kept.
func NewSetting(key, value, standard string, changeable bool) Setting {
	s := Setting{Key: key, Value: value, Default: standard, Changeable: changeable}
	if mayHoldSecret(key) {
		s.sum, s.Value = digestOf(value), hide(value)
	}
	return s
}

// Database is a line of SHOW DATABASES, without the admin console itself. Entries that come from a "*" line
// are listed once they have been used.
type Database struct {
	Name   string
	Target string // its name on the server
	Host   string // as configured: a name, an address, a socket directory, or several with commas; "" for the default socket
	Port   uint16
	Paused bool

	Disabled bool
	// What is in force; where the entry says nothing, that is the pooler's own setting.
	ForceUser      string // "": the client's
	PoolMode       string // "": the pooler's, or the user's
	PoolSize       int
	MinPoolSize    int
	ReservePool    int
	MaxConns       int    // server connections; 0: no limit
	MaxClients     int    // 0: no limit; -1: this version does not show it (1.18)
	ServerLifetime int    // seconds; -1: this version does not show it (1.18)
	LoadBalance    string // of several hosts: "round-robin", "disable" (1.24 and later)
}
