package follow

import "time"

// Route is what a load balancer is told of this member's pooler; where there are several, of the worst. It does not block: it is as of the
// last look, 0.2 s ago at most while the pooler answers.
func (w *Watcher) Route() Route {
	w.mu.Lock()
	defer w.mu.Unlock()
	open, forwarded := 0, 0
	for _, x := range w.poolers {
		switch x.said {
		case RouteOpen:
			open++
		case RouteForwarded:
			forwarded++
		}
	}
	switch {
	case open == len(w.poolers):
		return RouteOpen
	case open+forwarded == len(w.poolers):
		return RouteForwarded
	}
	return RouteDown
}

// tellOf tells load balancers what is seen.
func (x *watched) tellOf(v view) {
	x.forwards = v.forwards()
	v.lingers = time.Since(x.memory.Moved) < x.w.lingers
	x.tell(v.route())
}

// recalled is what load balancers are told until the first look. Who is started anew beside the leader and says that it is down for as long
// has every client cut (on-marked-down of HAProxy).
func (x *watched) recalled() Route {
	v := view{apart: x.w.m.Config.Apart(), led: x.memory.Led, one: x.memory.Moved.IsZero()} // one: it leads to its own server
	v.lingers = time.Since(x.memory.Moved) < x.w.lingers
	return v.route()
}

// tell is for load balancers.
func (x *watched) tell(r Route) {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	x.said = r
}

// unseen is about a pooler that cannot be looked at. A load balancer cuts its clients when it is told that it is down, so one answer that
// is late does not say so.
func (x *watched) unseen(err error) error {
	if x.troubled.IsZero() {
		x.troubled = time.Now()
	}
	if time.Since(x.troubled) >= unseenFor {
		x.tell(RouteDown)
	}
	return err
}

// unmovable is about a pooler whose file cannot be written. Its clients are at the right place while this member leads, and where it was
// moved before; else they are to go and connect again.
func (x *watched) unmovable(leader *Leader, err error) error {
	switch {
	case leader != nil && leader.Here:
		x.troubled = time.Time{}
		x.tell(RouteOpen)
	case !x.forwards:
		return x.unseen(err)
	}
	return err
}
