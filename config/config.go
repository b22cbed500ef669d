// Package config is pgbaton's configuration: one value that every subcommand works from.
package config

import (
	"strings"
	"time"
)

// Config is the whole configuration after flags, environment and file were merged, defaults
// filled in and everything validated.
type Config struct {
	Patroni  Patroni
	Postgres string // connection string of this member's own server
	Poolers  []Pooler
	Pause    Pause
	Resume   Resume
	Versions Versions
	Serve    Serve
	Members  Members
	StateDir string // exists, 0700, ours
	File     string // the file that was read; "" when there was none

	Warnings []*Error // what is odd, and no reason not to go on
}

// Patroni is how this member's REST API is reached.
type Patroni struct {
	URL          string
	URLs         []string // of all members, on a machine that has poolers and no member; see [Config.Apart]
	Username     string
	Password     string // from PasswordFile or the environment, never from the file itself
	PasswordFile string
	CAFile       string
	CertFile     string
	KeyFile      string
	Config       string // Patroni's own configuration file or folder, or [PatroniEnvironment]; fills what is not set above
	Scope        string // the cluster's name, from Config or PATRONI_SCOPE; "" when Config is not set
	Name         string // this member's, from Config or PATRONI_NAME; "" when Config is not set
}

// Apart reports whether there is no member on this machine: nothing but poolers that follow the leader.
func (c *Config) Apart() bool { return len(c.Patroni.URLs) > 0 }

// PatroniEnvironment as [Patroni.Config]: there is no file, all of it is in PATRONI_* variables.
const PatroniEnvironment = "env"

// Pooler is one entry of `poolers`. It may stand for several PgBouncer processes.
type Pooler struct {
	DSN          string // admin console; "" when there are only signals
	Password     string // from PasswordFile; "" leaves it to the DSN, pgpass or PGPASSWORD
	PasswordFile string
	Resolve      string // "all" (default): every address behind the name; "one": only the first
	Databases    Databases
	Pidfile      string  // co-located: signals when the console does not answer; of several addresses, only this host's
	Config       string  // its pgbouncer.ini, as it is seen from here; what it runs is compared with it after a reload
	Agent        string  // URL of the serve that stands beside it, and sees where it leads; "": that is seen from here
	Follow       *Follow // it is moved to the leader; nil: it leads to a route that others move
}

// Databases says what a pause stops. The zero value means all.
type Databases struct {
	Auto  bool     // those that lead to this cluster
	Names []string // exactly these; nil with Auto false: all
}

// Policies for a budget that was spent before the poolers were drained.
const (
	OnTimeoutHold      = "hold"
	OnTimeoutTerminate = "terminate"
	OnTimeoutSkip      = "skip"
	OnTimeoutWait      = "wait"
)

// Pause are the limits of a handover's first half.
type Pause struct {
	Budget         time.Duration // longest the guard may take while the lock is held and fresh
	Attempt        time.Duration // longest one PAUSE may take before everybody is resumed
	OnTimeout      string        // one of the OnTimeout constants
	Lease          time.Duration // longest a pause may last
	ShutdownBudget time.Duration // longest the guard may take while Patroni does not answer
	StopServer     bool          // stop_server: auto (true) or off
}

// Resume are the limits of a handover's second half.
type Resume struct {
	Route   string // connection string that leads to the primary; "" asks the poolers for theirs
	Timeout time.Duration
}

// Versions says where a configuration version can be seen, for reload.
type Versions struct {
	Postgres  VersionSource
	PgBouncer VersionSource
}

// VersionSource is one of three places; at most one field is set.
type VersionSource struct {
	Setting string // Postgres only: a custom setting
	File    string // a file whose content is the version
	Line    string // a configuration file with a line "config-version: N" in a comment
}

// Members is how the HTTP mode of the other members is reached, by check --all. Its files are read by who calls them, not by Load.
type Members struct {
	URL       string // with {host} or {name} for the other member's; "" does not ask them
	TokenFile string // one bearer token; a line feed behind it does not count
	CAFile    string // instead of the system's authorities
	CertFile  string // our certificate; goes with KeyFile
	KeyFile   string
}

// For is the URL of a member, of its name and the host of its server as Patroni has them.
func (m Members) For(name, host string) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return strings.NewReplacer("{host}", host, "{name}", name).Replace(m.URL)
}

// Scopes of the HTTP mode.
const (
	ScopeRead    = "read"
	ScopeOperate = "operate" // includes read
)

// Serve is the HTTP mode. Files are read by who serves, not by Load: what is wrong with them is no reason for a guard to end.
type Serve struct {
	Listen        string // HOST:PORT
	TokensFile    string // bearer tokens
	CertFile      string // TLS when set; goes with KeyFile
	KeyFile       string
	ClientCAFile  string   // client certificates are accepted when set
	ClientKeyPins []string // base64 of the SHA-256 of a client's public key (SPKI); nil: any certificate of the CA
	ClientScope   string   // what a client certificate may do: one of the Scope constants
	Grace         time.Duration
	LabelsFile    string // this member's labels, one NAME="VALUE" a line, as Kubernetes' downward API writes those of a pod
	Reconcile     string // off, or whose pauses are ended that have outlived their lease: one of the Reconcile constants
}

// Whose pauses a serve ends.
const (
	ReconcileOff = "off"
	ReconcileOwn = "own" // pgbaton's
	ReconcileAll = "all" // also those that somebody else has made
)
