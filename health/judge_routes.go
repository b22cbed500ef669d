package health

import (
	"net"
	"slices"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
	"github.com/pgbaton/pgbaton/postgres"
)

// cacheLimit is how long a pooler may keep the address of a name that moves: less than the time that a switchover takes anyway.
const cacheLimit = time.Second

const mendRoute = "mend the Service, proxy or name behind it, or take the pooler out of poolers"

// judgeRoutes is about the way from the poolers to the primary.
func judgeRoutes(f *findings, v view) {
	if route := v.further.route; route != nil {
		judgeRoute(f, v, "resume.route", []routeView{*route})
	}
	for _, p := range v.poolers {
		databases := p.databases()
		if len(databases) == 0 { // nobody uses it at the moment
			continue
		}
		more, looked := v.further.poolers[p.status.Pooler]
		if !looked {
			continue
		}
		judgeOthers(f, v, p, databases, more.routes)
		if more.follow != nil {
			judgeFollow(f, v, p.status.Pooler, more)
			continue
		}
		single := judgeHosts(f, v, p, databases, more.routes)
		if more.agent != "" {
			judgeAgent(f, v, p.status.Pooler, more)
			continue
		}
		if v.further.route != nil {
			continue
		}
		judgeRoute(f, v, "pooler "+p.status.Pooler, more.routes)
		if hidden := v.hidden(p, databases, more.routes); len(hidden) > 0 && !single {
			f.add("route-not-visible", p.status.Pooler,
				"set resume.route in the configuration file to an address at which this member reaches the primary the way the pooler does",
				"pooler %s: %s: it connects to %s, which only its own machine can see", p.status.Pooler, namesOf(hidden), hostsOf(hidden))
		}
	}
}

// judgeOthers is about a pooler that has databases of another cluster, which a pause of it stops, too.
func judgeOthers(f *findings, v view, p poolerView, databases []pgbini.Database, routes []routeView) {
	others := slices.DeleteFunc(slices.Clone(databases), func(d pgbini.Database) bool {
		address := net.JoinHostPort(d.Host, port(d.Port))
		return !slices.ContainsFunc(routes, func(r routeView) bool { return r.address == address && v.otherCluster(r) })
	})
	if len(others) > 0 {
		f.add("other-cluster", p.status.Pooler, "set databases: auto in its entry of poolers, or list the databases of this cluster there",
			"pooler %s: %s: %s is another cluster's server", p.status.Pooler, namesOf(others), hostsOf(others))
	}
}

// otherCluster reports whether a server that was looked at is none of this cluster's.
func (v view) otherCluster(r routeView) bool {
	return r.err == nil && r.identity.SystemID != "" && v.identity.SystemID != "" && r.identity.SystemID != v.identity.SystemID
}

// hidden are the databases of which no address can be looked at from here, and that lead to more than one member.
func (v view) hidden(p poolerView, databases []pgbini.Database, routes []routeView) []pgbini.Database {
	return slices.DeleteFunc(slices.Clone(databases), func(d pgbini.Database) bool {
		for host := range strings.SplitSeq(d.Host, ",") {
			address := net.JoinHostPort(strings.TrimSpace(host), port(d.Port))
			if slices.ContainsFunc(routes, func(r routeView) bool { return r.address == address }) {
				return true
			}
		}
		at, _ := v.place(p, d, routes)
		return at == placeMember && v.further.cluster != nil
	})
}

func namesOf(databases []pgbini.Database) string {
	names := make([]string, len(databases))
	for i, d := range databases {
		names[i] = d.Name
	}
	return strings.Join(names, ", ")
}

func hostsOf(databases []pgbini.Database) string {
	var hosts []string
	for _, d := range databases {
		if host := d.Host; !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return strings.Join(hosts, ", ")
}

// judgeAgent is about a pooler whose agent looks at its route: what can be seen from here does not count.
func judgeAgent(f *findings, v view, pooler string, more poolerFurther) {
	if more.agentErr != nil {
		f.add("agent-unreachable", pooler, "start pgbaton serve beside the pooler, or mend poolers[].agent and members: the address, "+
			"the token or the certificate", "pooler %s: its agent %s does not say where it leads: %v", pooler, more.agent, more.agentErr)
		return
	}
	one := slices.ContainsFunc(more.routes, v.leadsHere)
	for _, r := range more.routes {
		switch {
		case v.leadsHere(r), v.otherCluster(r), one && r.failed != api.RouteLogin:
		case r.failed == api.RouteLogin:
			f.add("route-login", r.address, "give the user of postgres in the agent's configuration a line in pg_hba.conf for that "+
				"machine, and a password", "pooler %s: its agent %s cannot log in at %s: %v", pooler, more.agent, r.address, r.err)
		case r.err != nil:
			f.add("route-elsewhere", r.address, mendRoute,
				"pooler %s: its agent %s finds no server at %s: %v", pooler, more.agent, r.address, r.err)
		case v.serverErr == nil || v.config.Apart():
			f.add("route-elsewhere", r.address, mendRoute,
				"pooler %s: as its agent %s sees it, %s leads to %s", pooler, more.agent, r.address, r.elsewhere())
		}
	}
}

// leadsHere reports whether a look has led to the primary, as far as it is known from here.
func (v view) leadsHere(r routeView) bool {
	if r.err != nil || r.identity.InRecovery {
		return false
	}
	return v.config.Apart() || v.identity.InRecovery || r.identity.SameServer(v.identity)
}

// elsewhere is what is at the end of a route that does not lead to the primary.
func (r routeView) elsewhere() string {
	if r.identity.InRecovery {
		return "a replica"
	}
	return "another server than this primary"
}

// judgeRoute judges the looks at the addresses of one pooler, or at the configured one.
func judgeRoute(f *findings, v view, whose string, routes []routeView) {
	one := slices.ContainsFunc(routes, v.leadsHere)
	for _, r := range routes {
		switch {
		case v.leadsHere(r), v.otherCluster(r), f.told(r.address): // another pooler connects there, too
		case postgres.LoginRefused(r.err):
			f.add("route-login", r.address, "give the user of postgres: a line in pg_hba.conf for this machine, and in the passfile a "+
				"password for this address; or set resume.route with a user of its own",
				"%s: cannot log in at %s from here: %v", whose, r.address, r.err)
		case r.err != nil && !postgres.Unreachable(r.err) && !one:
			f.add("route-elsewhere", r.address, mendRoute,
				"%s: no server takes connections at %s: %v", whose, r.address, r.err)
		case r.err != nil:
			f.add("route-unreachable", r.address, "if only the poolers can reach it, set resume.route in the configuration file",
				"%s: %s cannot be reached from here: %v", whose, r.address, r.err)
		case !one && (v.serverErr == nil || v.config.Apart()): // with one that leads to the primary the others may be for reading
			f.add("route-elsewhere", r.address, mendRoute,
				"%s: %s leads to %s", whose, r.address, r.elsewhere())
		}
	}
}

// place is where a host of a database leads.
type place int

const (
	placeUnknown place = iota // a Service, a proxy, a name that is not a member's
	placeMember               // always to the same member
	placeLeader               // a name that is the leader's address at the moment
	placeSeveral              // to several members, without a look at their role
)

// judgeHosts reports whether every database of a pooler leads to one member only.
func judgeHosts(f *findings, v view, p poolerView, databases []pgbini.Database, routes []routeView) (single bool) {
	if v.further.cluster == nil {
		return false
	}
	if len(v.further.cluster.Members) == 1 {
		return true
	}
	name := p.status.Pooler
	var fixed []string
	cached := map[string]bool{}
	fixedAt, several := "", map[string]bool{}
	for _, d := range databases {
		switch at, where := v.place(p, d, routes); at {
		case placeMember:
			fixed, fixedAt = append(fixed, d.Name), where
		case placeSeveral:
			several[where] = true
		case placeLeader:
			cached[where] = true
		}
	}
	const change = "let host= name what leads to the primary: a Service, a virtual address, or HAProxy with checks of GET /primary"
	switch {
	case len(fixed) == len(databases):
		f.add("one-member", name, change, "pooler %s: every database leads to %s only", name, fixedAt)
	case len(fixed) > 0:
		f.add("one-member-database", name, change, "pooler %s: %s: leads to %s only", name, strings.Join(fixed, ", "), fixedAt)
	}
	for where := range several {
		f.add("host-list", name, change, "pooler %s: %s is several members", name, where)
	}
	ttl, ok := seconds(p.state.Setting("dns_max_ttl"))
	for host := range cached {
		if ok && ttl > cacheLimit {
			f.add("route-cached", name, "if the name moves, set dns_max_ttl = 1 in pgbouncer.ini, and RELOAD; if it always is this "+
				"member's, "+change,
				"pooler %s: %s is the leader's own address, and the pooler keeps it for up to %s (dns_max_ttl)", name, host, ttl)
		}
	}
	return len(fixed) == len(databases)
}

// place says where a database leads, and how a person calls that.
func (v view) place(p poolerView, d pgbini.Database, routes []routeView) (place, string) {
	hosts := strings.Split(d.Host, ",")
	met := map[string]bool{} // the members behind all of the hosts
	for _, host := range hosts {
		host = strings.TrimSpace(host)
		if host == "" || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") {
			return placeMember, "the server behind a Unix socket of its own machine"
		}
		address := net.JoinHostPort(host, port(d.Port))
		if slices.ContainsFunc(routes, func(r routeView) bool { return r.address == address && r.direct }) && p.local {
			return placeMember, "the server of this machine (" + address + ")"
		}
		members := v.membersAt(host, d.Port)
		if len(members) == 0 {
			return placeUnknown, ""
		}
		for _, m := range members {
			met[m.Name] = true
			isName := net.ParseIP(host) == nil
			first, _, _ := strings.Cut(host, ".")
			moves := isName && host != m.Host && first != m.Name
			if len(members) == 1 && len(hosts) == 1 {
				switch {
				case !moves:
					return placeMember, "member " + m.Name + " (" + address + ")"
				case m.Leader():
					return placeLeader, host
				default:
					return placeUnknown, "" // a name for a replica, for reading
				}
			}
		}
	}
	if len(met) > 1 {
		return placeSeveral, "host=" + d.Host
	}
	return placeUnknown, ""
}

// membersAt are the members whose server a host and port are, every address of the host counted; nil where one of them is something else.
func (v view) membersAt(host string, at uint16) []patroni.Member {
	var members []patroni.Member
	for _, address := range v.further.addresses(host) {
		i := slices.IndexFunc(v.further.cluster.Members, func(m patroni.Member) bool {
			return m.Port == int(at) && slices.Contains(v.further.addresses(m.Host), address)
		})
		if i < 0 {
			return nil
		}
		if m := v.further.cluster.Members[i]; !slices.ContainsFunc(members, func(o patroni.Member) bool { return o.Name == m.Name }) {
			members = append(members, m)
		}
	}
	return members
}

// addresses are what a host resolves to; an address stands for itself.
func (f *further) addresses(host string) []string {
	if net.ParseIP(host) != nil {
		return []string{host}
	}
	return f.resolved[host]
}
