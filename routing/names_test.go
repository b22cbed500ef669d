package routing

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgbaton/pgbaton/pgb"
)

func TestAddresses(t *testing.T) {
	lookups := 0
	names := &Names{expires: map[string]time.Time{}, LookUp: func(_ context.Context, host string) ([]string, error) {
		lookups++
		if host == "unknown" {
			return nil, errors.New("no such host")
		}
		return []string{"10.0.0.2", "10.0.0.1"}, nil
	}}
	cache := func(ttl time.Duration, addresses ...string) map[string]pgb.DNSHost {
		return map[string]pgb.DNSHost{"db": {TTL: ttl, Addresses: addresses}, "unknown": {TTL: ttl, Addresses: addresses}}
	}
	both := []Address{{IP: "10.0.0.1"}, {IP: "10.0.0.2"}}
	for _, x := range []struct {
		name, pooler, host string
		cache              map[string]pgb.DNSHost
		want               []Address
	}{
		{"an address", "p", "10.9.9.9", nil, []Address{{}}},
		{"a name", "p", "db", nil, both},
		{"the pooler has it as it is", "p", "db", cache(5*time.Second, "10.0.0.1"), both},
		{"the name has moved on", "p", "db", cache(5*time.Second, "10.0.0.9"), append(both[:2:2], Address{IP: "10.0.0.9", Cached: true})},
		{"shown as 0, which may be most of a second", "q", "db", cache(0, "10.0.0.9"), append(both[:2:2], Address{IP: "10.0.0.9", Cached: true})},
		{"nobody knows it", "p", "unknown", nil, []Address{{}}},
		{"only the pooler knows it, from before", "p", "unknown", cache(0, "10.0.0.9"), []Address{{IP: "10.0.0.9"}}},
	} {
		t.Run(x.name, func(t *testing.T) {
			if diff := cmp.Diff(x.want, names.Round().Addresses(t.Context(), x.pooler, x.host, x.cache)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
	// The entry of q has expired when it has shown 0 for a second.
	names.expires["q db"] = time.Now().Add(-time.Millisecond)
	lookups = 0
	round := names.Round()
	for range 2 {
		if diff := cmp.Diff(both, round.Addresses(t.Context(), "q", "db", cache(0, "10.0.0.9"))); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
	if lookups != 1 {
		t.Errorf("%d look-ups in one round", lookups)
	}
	// And lives again where the pooler has looked it up anew.
	if got := names.Round().Addresses(t.Context(), "q", "db", cache(time.Second, "10.0.0.9")); len(got) != 3 {
		t.Errorf("%v", got)
	}
}
