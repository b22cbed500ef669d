package health

import (
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/postgres"
)

// view is what was seen, for the rules (see [judge]). What a status costs is always looked at; what takes more questions is in further.
type view struct {
	config     *config.Config
	recheck    error // the configuration as it is now
	health     patroni.Health
	dynamic    patroni.Dynamic
	patroniErr error // why one of these two is not known
	identity   postgres.Identity
	serverErr  error // why it is not known
	poolers    []poolerView
	leases     []api.LeaseStatus // of pauses of this member
	unresolved []string          // the configured poolers of which no address is known, each with why
	further    *further          // nil: not looked at
}

// poolerView is one pooler.
type poolerView struct {
	status api.PoolerStatus
	local  bool // on this machine
	ending bool // its process runs and takes no connections any more
	state  *pgb.State
	ours   []string // the databases that a pause stops; nil: all
}

// further is what only a preflight looks at. Of what could not be looked at it has why.
type further struct {
	hooks    hooksView
	init     initView
	own      *serverView
	cluster  *patroni.Cluster
	unseen   error                 // why cluster is not known, although Patroni answers
	apis     map[string]apiView    // the REST APIs of the other members, by name
	members  map[string]serverView // the servers of the other members, by name
	poolers  map[string]poolerFurther
	route    *routeView          // of resume.route; nil: not set
	resolved map[string][]string // the addresses of hosts of the cluster's view and of poolers' databases
	files    []fileView
}

// hooksView is what Patroni runs, as its local configuration has it.
type hooksView struct {
	local    config.PatroniHooks
	err      error // the local configuration cannot be seen
	programs map[string]programView
}

// programView is a program that Patroni runs.
type programView struct {
	problem string // why Patroni cannot run it; "" also where it cannot be told
	other   bool   // it is not pgbaton
}

// initView is who inherits the orphans of this machine or container, the postmaster among them.
type initView struct {
	postmasterErr error // the postmaster's process cannot be seen
	above         int   // process id of the postmaster's parent
	name          string
	adopts        int  // process id of who inherited a process of ours; 0: not tried
	zombie        bool // and did not reap it
}

// apiView is what the Patroni of another member says of itself.
type apiView struct {
	err     error
	version string
}

// serverView is a server of the cluster.
type serverView struct {
	err          error
	ready        postgres.Readiness
	transactions []postgres.Transaction // open ones, the oldest first; nil also in recovery
	hidden       bool                   // other users' cannot be seen
	slots        postgres.Slots
}

// poolerFurther is what a preflight asks a pooler.
type poolerFurther struct {
	ours     []string          // the databases that a pause stops, found out where the configuration says auto; nil: all
	mayPause error             // why its user may not
	modes    map[string]string // pool_mode of users
	several  bool              // processes share its address
	peers    int               // other processes that it says belong to it
	routes   []routeView       // from here, or where the pooler has an agent from there
	agent    string            // its URL; "": it has none
	agentErr error             // why it has not said where the pooler leads

	follow    *config.Follow // it is moved, by this member or by another one; nil: it leads to a route
	unmovable error          // why it could not be moved
}

// routeView is one look at an address that a pooler connects to.
type routeView struct {
	address  string
	identity postgres.Identity
	err      error
	failed   string // how an agent says that its look has failed, as [api.RouteLook] has it; "" for our own looks
	direct   bool   // on this machine's loopback, and nothing stands between it and the local server
}

// fileView is a file that decides what the hooks do.
type fileView struct {
	path    string
	problem string
}

// age rounds a duration for people.
func age(d time.Duration) time.Duration {
	if d < time.Minute {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}
