package pgb

import (
	"context"
	"net"
	"strings"
	"time"
)

// DNSHost is what a pooler has in its cache for a host name (SHOW DNS_HOSTS). It connects to these addresses until the entry has expired,
// whatever the name service says meanwhile. No command empties the cache (PgBouncer 1.18 to 1.26).
type DNSHost struct {
	Addresses []string
	TTL       time.Duration // in whole seconds, rounded down: 0 is expired, or expires within a second
}

// DNSHosts asks for the cache, by host name.
func (p *Pooler) DNSHosts(ctx context.Context) (map[string]DNSHost, error) {
	result, err := p.exec(ctx, "SHOW DNS_HOSTS")
	if err != nil {
		return nil, err
	}
	cache := map[string]DNSHost{}
	for row := range result.Rows {
		entry := DNSHost{TTL: time.Duration(result.Int(row, "ttl")) * time.Second}
		for address := range strings.SplitSeq(result.Get(row, "addrs"), ",") {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				host = address
			}
			if net.ParseIP(host) != nil {
				entry.Addresses = append(entry.Addresses, host)
			}
		}
		cache[result.Get(row, "hostname")] = entry
	}
	return cache, nil
}
