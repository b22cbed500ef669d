package hooks

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/routing"
)

const (
	routeRetry      = 50 * time.Millisecond // between one round of looks and the next
	routeRetryFirst = 15 * time.Millisecond // and in the first routeFirst: mostly the route leads here in a moment
	routeFirst      = 2 * time.Second

	routeLookMost = 5 * time.Second // for a look, however slow the machine is
	routeUnclear  = 3               // rounds, one after the other, that may tell nothing
)

// sight is what the last round of looks at an address has shown. The greater counts where looks differ.
type sight int

const (
	notSeen        sight = iota
	leadsHere            // all of them
	otherSystem          // to another database cluster
	standsBy             // to a standby that was one before this server became primary: an address for reading
	notLetIn             // a server answers and lets us in with no database
	noAnswer             // nobody answers at all: a name that does not resolve, a packet filter
	refuses              // no server is there, or none that is ready
	leadsElsewhere       // to another server of this cluster, or to different ones
	expires              // as the two before, and a pooler goes there only until its cache has expired
)

// waypoint is one address on the route.
type waypoint struct {
	name    string
	servers []*postgres.Server // ways to log in there
	stop    context.CancelFunc

	agent   *api.Client // who looks, where that cannot be done from here; nil: we do
	address string      // as the agent knows it

	mu       sync.Mutex
	seen     sight
	cached   bool          // only the poolers' cache has it: the name has moved on
	led      bool          // a look has led here
	wavered  bool          // and another one has not, or has met another server of ours
	reading  bool          // it has led to a standby that was one before
	database int           // which way to log in is used
	unfit    int           // ways to log in, one after the other, that were refused
	slow     time.Duration // the longest that an answer has taken
	late     bool          // the last round had looks that got no answer, which may have been late
	unclear  int           // such rounds, one after the other, that have told nothing
	last     string
	said     map[string]bool
	standing map[time.Time]bool // such standbys, by the start of their postmaster
}

func newWaypoint(name string, servers []*postgres.Server) *waypoint {
	return &waypoint{name: name, servers: servers, said: map[string]bool{}, standing: map[time.Time]bool{}}
}

func (w *waypoint) sight() sight {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cached && (w.seen == notSeen || w.seen >= refuses) {
		return expires
	}
	return w.seen
}

func (w *waypoint) setCached(cached bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cached = cached
}

func (w *waypoint) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.name + " " + w.last
}

// follow looks again and again where one address leads, until the context ends.
func (r *route) follow(ctx context.Context, w *waypoint) {
	began := time.Now()
	for ctx.Err() == nil {
		if r.here().PostmasterStart.IsZero() {
			member.Sleep(ctx, writableInterval) // nothing to compare with yet
			continue
		}
		again := w.note(r.round(ctx, w))
		select {
		case r.news <- struct{}{}:
		default:
		}
		switch {
		case again:
		case time.Since(began) < routeFirst:
			member.Sleep(ctx, routeRetryFirst)
		default:
			member.Sleep(ctx, routeRetry)
		}
	}
}

// round looks several times. The connections are open at the same time, until all have answered: a proxy that knows several servers
// shows them.
func (r *route) round(ctx context.Context, w *waypoint) []sight {
	w.mu.Lock()
	looks, apart, server := routing.InARow, time.Duration(0), w.servers[w.database]
	if w.wavered {
		looks, apart = routing.AfterAll, routing.Apart
	}
	w.mu.Unlock()
	if w.agent != nil {
		return r.roundByAgent(ctx, w, looks)
	}
	limit := w.patience(looks)
	sights, took := make([]sight, looks), make([]time.Duration, looks)
	conns := routing.AtOnce(ctx, looks, apart, func(i int) (conn *postgres.Conn, enough bool) {
		began := time.Now()
		conn, sights[i] = r.look(ctx, w, server, limit)
		took[i] = time.Since(began)
		return conn, sights[i] > standsBy
	})
	r.following.Go(func() { routing.CloseAll(conns) })
	if ctx.Err() != nil || r.tellsNothing(ctx, w, sights, took, limit) {
		return nil
	}
	return sights
}

// patience is how long each of so many looks at a time may take: on a busy machine many log-ins at a time are slower than few.
func (w *waypoint) patience(looks int) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return min(max(3*w.slow*time.Duration(looks)/routing.InARow, member.LookTimeout), routeLookMost)
}

// tellsNothing reports whether looks that got no answer in time are not to be taken for a server that does not answer: those beside them,
// or a log-in to the local server, took nearly as long. Taken for one, such a look has more of them follow, and those get no answer in
// time, either, on and on until the lease is over.
func (r *route) tellsNothing(ctx context.Context, w *waypoint, sights []sight, took []time.Duration, limit time.Duration) bool {
	var slow time.Duration
	silent := slices.Max(sights) == noAnswer // what is worse is told by a server or a machine that did answer
	if silent {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		began := time.Now()
		if conn, err := r.local.Connect(ctx); err == nil || ctx.Err() != nil {
			slow = time.Since(began)
			if err == nil {
				conn.Close()
			}
		}
	}
	for i, s := range sights {
		if s != notSeen && s != noAnswer && s != refuses {
			slow = max(slow, took[i])
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slow = max(w.slow, slow)
	if w.late = silent && 4*w.slow >= limit; !w.late || w.unclear == routeUnclear {
		w.unclear = 0
		return false
	}
	w.unclear++
	return true
}

// note takes a round's looks into account and reports whether another one should follow at once: with another database.
func (w *waypoint) note(sights []sight) (again bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(sights) == 0 {
		return false
	}
	worst, led := notSeen, 0
	for _, s := range sights {
		worst = max(worst, s)
		w.reading = w.reading || s == standsBy
		if s == leadsHere {
			led++
		}
	}
	if led > 0 && worst > leadsHere && worst != standsBy {
		worst = leadsElsewhere
	}
	w.wavered = w.wavered || !w.late && (worst == leadsElsewhere || w.led && worst > standsBy)
	w.led = w.led || led > 0
	switch {
	case worst == notLetIn:
		w.unfit++
		w.database = (w.database + 1) % len(w.servers)
		if w.unfit < len(w.servers) {
			return true
		}
	case worst != notSeen:
		w.unfit = 0
	}
	if w.reading && worst != leadsHere {
		worst = standsBy
	}
	w.seen = worst
	return false
}

// look makes one connection, which stays open where it leads to a server, and says where it has led.
func (r *route) look(whole context.Context, w *waypoint, server *postgres.Server, limit time.Duration) (*postgres.Conn, sight) {
	ctx, cancel := context.WithTimeout(whole, limit)
	defer cancel()
	conn, there, err := routing.Once(ctx, server)
	var seen sight
	var text string
	if failed := routing.Failed(err); failed != "" {
		seen, text = sightOfFailure(failed), err.Error()
	} else {
		seen, text = r.judgeServer(there, func() bool {
			return r.stood(ctx, w, there, func() (postgres.Replay, error) { return conn.Replay(ctx) })
		})
	}
	w.say(whole, r.log, text)
	return conn, seen
}

// sightOfFailure is what a look has shown that has led to no server that answers: one of the kinds of [api.RouteLook].
func sightOfFailure(failed string) sight {
	switch failed {
	case api.RouteLogin:
		return notLetIn
	case api.RouteSilent:
		return noAnswer
	}
	return refuses
}

// judgeServer says what it means that a look has led to a server, and how people are told.
func (r *route) judgeServer(there postgres.Identity, stood func() bool) (sight, string) {
	switch here := r.here(); {
	case there.SameServer(here):
		return leadsHere, "leads here"
	case here.SystemID != "" && there.SystemID != "" && here.SystemID != there.SystemID:
		return otherSystem, "leads to another database cluster"
	case !there.InRecovery:
		return leadsElsewhere, "leads to another server"
	case stood():
		return standsBy, "leads to a replica that was one before: an address for reading"
	}
	return leadsElsewhere, "leads to a replica"
}

// say logs what is new. A proxy that knows two primaries for a while answers in turn: that is said once.
func (w *waypoint) say(ctx context.Context, log *slog.Logger, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if text == w.last || ctx.Err() != nil && w.last != "" {
		return
	}
	level := slog.LevelInfo
	if w.said[text] {
		level = slog.LevelDebug
	}
	w.said[text] = true
	w.last = text
	log.Log(ctx, level, "route", "address", w.name, "now", text)
}

// inPlace are the events after which this server is primary as it was before.
var inPlace = []string{"on_restart", restartAction, "keeper"}

// stood reports whether a standby was one already before this server became primary. What is found out about a postmaster stays true.
func (r *route) stood(ctx context.Context, w *waypoint, there postgres.Identity, replay func() (postgres.Replay, error)) bool {
	w.mu.Lock()
	stood := w.standing[there.PostmasterStart]
	w.mu.Unlock()
	if stood || there.SystemID == "" || there.SystemID != r.here().SystemID {
		return stood
	}
	theirs, err := replay()
	if err != nil {
		return false
	}
	local, err := r.local.Connect(ctx)
	if err != nil {
		return false
	}
	defer local.Close()
	ours, err := local.Replay(ctx)
	if err != nil || !stoodBefore(theirs, ours, time.Since(r.began), slices.Contains(inPlace, r.in)) {
		return false
	}
	w.mu.Lock()
	w.standing[there.PostmasterStart] = true
	w.mu.Unlock()
	return true
}
