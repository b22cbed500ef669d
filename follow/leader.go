package follow

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/state"
)

// Leader is a member that was proven to be the one that takes writes.
type Leader struct {
	Name     string
	Address  pgbini.Address // of its server, as Patroni has others connect to it
	Identity postgres.Identity
	Here     bool // it is the server of this member
}

// known is what this member remembers of its cluster, for when its own Patroni does not answer any more.
type known struct {
	SystemID string   `json:"systemId,omitempty"`
	Timeline int      `json:"timeline,omitempty"` // the latest that was seen at a leader
	APIs     []string `json:"apis,omitempty"`     // of the members' REST APIs
}

const (
	knownFile = "members.json" // in the state directory
	maxAPIs   = 100            // members that are asked
)

// Finder finds the leader of this member's cluster. It is safe for use by several goroutines.
type Finder struct {
	m  *member.Member
	mu sync.Mutex
	known
	last  string    // whose REST API answered last; "" is our own
	asked time.Time // when [Finder.Successor] last asked the same member's server
}

// urls are the REST APIs that may be asked; the first is our own, "", where there is a member on this machine.
func (f *Finder) urls() []string {
	urls := []string{""}
	if f.m.Config.Apart() {
		urls = slices.Clone(f.m.Config.Patroni.URLs)
	}
	for _, api := range f.APIs {
		if !slices.Contains(urls, api) {
			urls = append(urls, api)
		}
	}
	return urls
}

// NewFinder makes one that knows what the state directory tells of the cluster.
func NewFinder(m *member.Member) *Finder {
	f := &Finder{m: m}
	if m.Config.StateDir != "" {
		_ = state.Read(filepath.Join(m.Config.StateDir, knownFile), &f.known)
	}
	return f
}

var (
	// ErrNoLeader says that nobody holds the lock.
	ErrNoLeader = errors.New("no member has the leader lock")
	// ErrNotProven says that the holder of the lock is not seen to take writes.
	ErrNotProven = errors.New("the leader is not proven")
	// ErrSame says that the member still holds the lock that another one is to take over from.
	ErrSame = errors.New("the same member has the leader lock")
)

// Learn asks Patroni once who the members are and leaves that in the state directory, where it is new. It returns where the server of the
// holder of the lock is. It blocks for 2 × [member.RestTimeout] at most.
func (f *Finder) Learn(ctx context.Context) (leader pgbini.Address, err error) {
	cluster, err := f.cluster(ctx)
	if m, ok := cluster.Leader(); ok && err == nil {
		leader = addressOf(m)
	}
	return leader, err
}

func addressOf(m patroni.Member) pgbini.Address {
	return pgbini.Address{Host: m.Host, Port: uint16(m.Port)}
}

// askSame is between looks at the server of a member that has had the lock all the time. A look by SQL takes a member ten times what one at
// its REST API does (a backend is started), and the servers are busy when somebody waits for a successor.
const askSame = time.Second

// Successor is [Finder.Leader] for who waits for another one than before, the holder of the lock that [Finder.Learn] or a look has shown:
// as long as that has not changed, its server is looked at once a second and the error is [ErrSame] otherwise.
func (f *Finder) Successor(ctx context.Context, before pgbini.Address, after postgres.Identity) (Leader, error) {
	cluster, err := f.cluster(ctx)
	if err != nil {
		return Leader{}, err
	}
	if m, ok := cluster.Leader(); ok && addressOf(m) == before {
		f.mu.Lock()
		soon := time.Since(f.asked) < askSame
		if !soon {
			f.asked = time.Now()
		}
		f.mu.Unlock()
		if soon {
			return Leader{}, ErrSame
		}
	}
	return f.leader(ctx, cluster, after)
}

// Leader finds and proves the leader. It blocks for some seconds at most where members do not answer, and for milliseconds where they do.
// after, when it is not zero, is a server that does not count any more: another run of it, or another server, must be the leader.
func (f *Finder) Leader(ctx context.Context, after postgres.Identity) (Leader, error) {
	cluster, err := f.cluster(ctx)
	if err != nil {
		return Leader{}, err
	}
	return f.leader(ctx, cluster, after)
}

// leader proves whom Patroni calls the leader.
func (f *Finder) leader(ctx context.Context, cluster patroni.Cluster, after postgres.Identity) (Leader, error) {
	m, ok := cluster.Leader()
	if !ok || m.Role == "standby_leader" {
		return Leader{}, ErrNoLeader
	}
	local, err := f.m.Server()
	if err != nil {
		return Leader{}, err
	}
	its, err := member.ServerOf(local, m)
	if err != nil {
		return Leader{}, fmt.Errorf("%w: Patroni does not say where %s is to be reached", ErrNotProven, m.Name)
	}
	l := Leader{Name: m.Name, Address: addressOf(m)}
	var here postgres.Identity
	var asking sync.WaitGroup
	if !f.m.Config.Apart() {
		asking.Go(func() { here, _ = member.Identify(ctx, local) })
	}
	l.Identity, err = member.Identify(ctx, its)
	asking.Wait()
	if err != nil {
		return Leader{}, fmt.Errorf("%w: %s: %w", ErrNotProven, m.Name, err)
	}
	l.Here = l.Identity.SameServer(here)
	return l, f.prove(l, here, after)
}

// prove decides whether the holder of the lock is the server that takes this cluster's writes.
func (f *Finder) prove(l Leader, here, after postgres.Identity) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	system := f.SystemID
	if here.SystemID != "" {
		system = here.SystemID
	}
	fail := func(why string) error { return fmt.Errorf("%w: %s %s", ErrNotProven, l.Name, why) }
	switch there := l.Identity; {
	case there.InRecovery:
		return fail("is in recovery")
	case there.SystemID == "":
		return fail("does not let this user ask for its system identifier: grant execute on function pg_control_system")
	case system != "" && there.SystemID != system:
		return fail("is of another database cluster")
	case there.SystemID == f.SystemID && there.Timeline < f.Timeline:
		return fail(fmt.Sprintf("writes timeline %d, and %d was written already", there.Timeline, f.Timeline))
	case !after.PostmasterStart.IsZero() && there.SameServer(after):
		return fail("has not been stopped yet")
	default:
		if f.SystemID != there.SystemID || f.Timeline != there.Timeline {
			f.SystemID, f.Timeline = there.SystemID, there.Timeline
			f.save()
		}
	}
	return nil
}

// cluster asks the member that answered last, and all of them where it does not.
func (f *Finder) cluster(ctx context.Context) (patroni.Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, member.RestTimeout)
	defer cancel()
	f.mu.Lock()
	first, apis := f.last, f.urls()
	if !slices.Contains(apis, first) {
		first = apis[0]
	}
	f.mu.Unlock()
	cluster, err := f.ask(ctx, first)
	if err == nil {
		return cluster, nil
	}
	type answer struct {
		cluster patroni.Cluster
		err     error
	}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), member.RestTimeout)
	defer cancel()
	answers := make(chan answer, len(apis))
	asked := 0
	for _, api := range apis {
		if api == first {
			continue
		}
		asked++
		go func() {
			cluster, err := f.ask(ctx, api)
			answers <- answer{cluster, err}
		}()
	}
	for range asked {
		if a := <-answers; a.err == nil {
			return a.cluster, nil
		}
	}
	return patroni.Cluster{}, err
}

// ask asks one member; "" is our own.
func (f *Finder) ask(ctx context.Context, api string) (patroni.Cluster, error) {
	client, err := f.m.Patroni()
	if api != "" && err == nil {
		// The password is for our own: a name in the DCS is not to be told it.
		client, err = client.Bare().At(api)
	}
	if err != nil {
		return patroni.Cluster{}, err
	}
	cluster, err := client.Cluster(ctx)
	if err != nil {
		return cluster, err
	}
	var apis []string
	for _, m := range cluster.Members {
		if at, ok := baseURL(m.APIURL); ok && len(apis) < maxAPIs {
			apis = append(apis, at)
		}
	}
	slices.Sort(apis)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = api
	if len(apis) > 0 && !slices.Equal(apis, f.APIs) {
		f.APIs = apis
		f.save()
	}
	return cluster, nil
}

// baseURL is a member's REST API as the DCS has it (http://10.0.0.2:8008/patroni) without the path.
func baseURL(api string) (string, bool) {
	u, err := url.Parse(api)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return "", false
	}
	return u.Scheme + "://" + u.Host, true
}

// save is best effort: it is for a process that is started later.
func (f *Finder) save() {
	if f.m.Config.StateDir == "" || f.m.DryRun {
		return
	}
	if err := state.Write(filepath.Join(f.m.Config.StateDir, knownFile), f.known); err != nil {
		f.m.Log.Debug("cannot remember who the members are", "error", err)
	}
}
