package routing

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/pgb"
)

const (
	resolveTimeout = time.Second
	cacheRounding  = time.Second // PgBouncer shows the rest of an entry's life in whole seconds, rounded down
)

// Address is one that a pooler goes to for a host. An empty IP stands for the host itself: it is an address, or a name that nobody knows,
// and may be known in a moment.
type Address struct {
	IP     string
	Cached bool // the name has moved on, and only the pooler's cache has this one, for as long as it lives
}

// Names knows the addresses of the poolers' hosts as the poolers do. It is safe for use by several goroutines.
type Names struct {
	LookUp pgb.Resolver

	mu      sync.Mutex
	expires map[string]time.Time // when an entry of a pooler's cache that shows 0 has surely expired
}

// NewNames makes one that asks this machine's resolver.
func NewNames() *Names {
	return &Names{LookUp: net.DefaultResolver.LookupHost, expires: map[string]time.Time{}}
}

// Round is one round of questions, in which a name is looked up once. It is safe for use by several goroutines.
type Round struct {
	names *Names

	mu       sync.Mutex
	resolved map[string][]string
}

// Round begins one.
func (n *Names) Round() *Round { return &Round{names: n, resolved: map[string][]string{}} }

// Addresses are those that a pooler goes to for a host, sorted: what it has in its cache (SHOW DNS_HOSTS) until that has expired, and every
// address that the name has now: behind one, each proxy learns on its own where the primary is. It blocks for a second at most.
func (r *Round) Addresses(ctx context.Context, pooler, host string, cache map[string]pgb.DNSHost) []Address {
	if net.ParseIP(host) != nil {
		return []Address{{}}
	}
	now := r.resolve(ctx, host)
	cached := r.names.cached(pooler, host, cache, len(now) == 0)
	all := slices.Concat(now, cached)
	if len(all) == 0 {
		return []Address{{}}
	}
	slices.Sort(all)
	var addresses []Address
	for _, ip := range slices.Compact(all) {
		addresses = append(addresses, Address{IP: ip, Cached: len(now) > 0 && !slices.Contains(now, ip)})
	}
	return addresses
}

func (r *Round) resolve(ctx context.Context, host string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	found, known := r.resolved[host]
	if !known {
		ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
		defer cancel()
		found, _ = r.names.LookUp(ctx, host)
		r.resolved[host] = found
	}
	return found
}

// cached are the addresses of a live entry in a pooler's cache, or of an expired one, too.
func (n *Names) cached(pooler, host string, cache map[string]pgb.DNSHost, expired bool) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	entry, there := cache[host]
	key := pooler + " " + host
	if entry.TTL > 0 {
		delete(n.expires, key)
	} else if there && n.expires[key].IsZero() {
		n.expires[key] = time.Now().Add(cacheRounding)
	}
	if expired || there && (entry.TTL > 0 || time.Now().Before(n.expires[key])) {
		return entry.Addresses
	}
	return nil
}
