package follow

import (
	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

// view is what a look at a pooler and at the cluster has shown.
type view struct {
	local   pgbini.Address // where the entries lead while this member leads
	to      pgbini.Address // where they lead
	one     bool           // all to the same address
	leader  *Leader        // nil: nobody is proven
	apart   bool           // there is no member beside it
	led     bool           // its clients are those of a leader: this member led, or the pooler was moved, and it has not gone back since
	backDue bool           // those that were to be taken along have gone
	lingers bool           // it was moved only just
}

// forwards reports whether the pooler leads to another server than its own.
func (v view) forwards() bool { return !v.one || v.to != v.local }

// decide says where a pooler is to lead, and why; move is false where it stays.
func decide(v view) (to pgbini.Address, move bool, why string) {
	switch {
	case v.leader == nil:
		return v.to, false, "nobody is proven to lead"
	case v.leader.Here && v.forwards():
		return v.local, true, "this member leads"
	case v.leader.Here:
		return v.to, false, "this member leads"
	case !v.forwards() && !v.led:
		return v.to, false, "its clients are not those of a leader"
	case v.forwards() && v.backDue:
		return v.local, true, "those that it was moved for have gone"
	case !v.one || v.to != v.leader.Address:
		return v.leader.Address, true, "its clients are those of the leader"
	}
	return v.to, false, "it leads to the leader"
}

// Route is what a load balancer is told of a pooler.
type Route int

const (
	RouteDown      Route = iota // no client of the leader belongs here
	RouteOpen                   // new ones are welcome
	RouteForwarded              // those that are here may stay, and no new ones come
)

// String is for people.
func (r Route) String() string {
	return [...]string{"not the leader's pooler", "leads to the leader", "forwards to the leader: no new sessions"}[r]
}

// route decides what a load balancer is told. Until the pooler forwards, its clients and new ones wait at the same place. For a while after
// that new ones are taken along, too: until the load balancer has seen the leader's own pooler it has no other, and closes what comes.
func (v view) route() Route {
	switch {
	case v.apart, v.forwards() && v.lingers:
		return RouteOpen
	case v.forwards():
		return RouteForwarded
	case v.led, v.leader != nil && v.leader.Here:
		return RouteOpen
	}
	return RouteDown
}
