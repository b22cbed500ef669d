package pgb

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
)

// Spec is a configured entry before names are resolved.
type Spec struct {
	DSN       string
	Password  string // overrides what the DSN and pgpass say
	First     bool   // only the first address behind the name, not all of them
	Databases []string
	Pidfile   string
	Config    string
	Entry     int // whatever the caller calls it
}

// Resolver looks up a host name; net.DefaultResolver.LookupHost is one.
type Resolver func(ctx context.Context, host string) ([]string, error)

// Resolve turns entries into poolers: one for each host and port of the DSN and each address behind the
// host's name. Socket directories and addresses stand for themselves. It returns what it could resolve, and
// one error for each host that it could not.
//
// A pidfile is one process's. Where several poolers have the same one, those of other hosts lose it: a signal for them would go
// to this host's process, and take it out of another's hands.
func Resolve(ctx context.Context, specs []Spec, lookup Resolver) ([]*Pooler, []error) {
	var poolers []*Pooler
	var errs []error
	seen := map[string]*Pooler{}
	sharers := map[string]int{} // of a pidfile
	for i, spec := range specs {
		if spec.DSN == "" {
			poolers = append(poolers, &Pooler{Name: spec.Pidfile, Pidfile: spec.Pidfile, Config: spec.Config, Databases: spec.Databases,
				Entry: spec.Entry})
			continue
		}
		base, err := pgconn.ParseConfig(spec.DSN)
		if err != nil {
			// pgconn's text repeats the connection string.
			errs = append(errs, fmt.Errorf("poolers[%d].dsn: not a connection string", i))
			continue
		}
		if spec.Password != "" {
			base.Password = spec.Password
		}
		for _, target := range targets(base) {
			addresses := []string{target.Host}
			if !isLiteral(target.Host) {
				if addresses, err = lookup(ctx, target.Host); err != nil {
					errs = append(errs, fmt.Errorf("pooler %s: %w", target.Host, err))
					sharers[spec.Pidfile]++
					continue
				}
			}
			for i, address := range addresses {
				p := spec.at(target, address)
				if spec.First {
					if i > 0 {
						break
					}
					p.second = spec.otherFamily(target, addresses)
				}
				if same := seen[p.Name]; same != nil {
					same.merge(p)
					continue
				}
				seen[p.Name] = p
				poolers = append(poolers, p)
			}
		}
	}
	for _, p := range poolers {
		sharers[p.Pidfile]++
	}
	for _, p := range poolers {
		if p.Pidfile != "" && sharers[p.Pidfile] > 1 && !p.Local() {
			p.Pidfile = ""
		}
	}
	return poolers, errs
}

// at is the pooler at an address of a configured host.
func (spec Spec) at(target *pgconn.Config, address string) *Pooler {
	cfg := atAddress(target, address)
	p := &Pooler{Name: poolerName(address, cfg.Port), config: cfg, Databases: spec.Databases, Pidfile: spec.Pidfile, Config: spec.Config,
		Entry: spec.Entry}
	if address != target.Host {
		p.behind = behindName(target.Host, cfg.Port)
	}
	return p
}

// otherFamily is the first address of another family than the first one, nil where there is none.
func (spec Spec) otherFamily(target *pgconn.Config, addresses []string) *Pooler {
	is4 := func(address string) bool { return net.ParseIP(address).To4() != nil }
	for _, address := range addresses {
		if is4(address) != is4(addresses[0]) {
			return spec.at(target, address)
		}
	}
	return nil
}

// merge adds what another entry says of the same process.
func (p *Pooler) merge(other *Pooler) {
	if p.Databases == nil || other.Databases == nil {
		p.Databases = nil
	} else {
		for _, name := range other.Databases {
			if !slices.Contains(p.Databases, name) {
				p.Databases = append(slices.Clone(p.Databases), name)
			}
		}
	}
	if p.Pidfile == "" {
		p.Pidfile = other.Pidfile
	}
	if p.Config == "" {
		p.Config = other.Config
	}
}

// targets splits a connection string with several hosts into one configuration for each. pgconn keeps
// the further hosts, and the same host without TLS, as fallbacks; here only the latter are.
func targets(base *pgconn.Config) []*pgconn.Config {
	type key struct {
		host string
		port uint16
	}
	var order []key
	ways := map[key][]*pgconn.FallbackConfig{}
	add := func(f *pgconn.FallbackConfig) {
		k := key{f.Host, f.Port}
		if ways[k] == nil {
			order = append(order, k)
		}
		ways[k] = append(ways[k], f)
	}
	add(&pgconn.FallbackConfig{Host: base.Host, Port: base.Port, TLSConfig: base.TLSConfig})
	for _, f := range base.Fallbacks {
		add(f)
	}
	var configs []*pgconn.Config
	for _, k := range order {
		cfg := base.Copy()
		cfg.Host, cfg.Port, cfg.TLSConfig = k.host, k.port, ways[k][0].TLSConfig
		cfg.Fallbacks = ways[k][1:]
		configs = append(configs, cfg)
	}
	return configs
}

// atAddress makes the configuration dial one address; TLS goes on to verify the name.
func atAddress(target *pgconn.Config, address string) *pgconn.Config {
	cfg := target.Copy()
	cfg.Host = address
	cfg.Fallbacks = make([]*pgconn.FallbackConfig, 0, len(target.Fallbacks))
	for _, f := range target.Fallbacks {
		cfg.Fallbacks = append(cfg.Fallbacks, &pgconn.FallbackConfig{Host: address, Port: f.Port, TLSConfig: f.TLSConfig})
	}
	return cfg
}

func isLiteral(host string) bool {
	return strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || net.ParseIP(host) != nil
}

func poolerName(address string, port uint16) string {
	if strings.HasPrefix(address, "/") || strings.HasPrefix(address, "@") {
		return address + "/.s.PGSQL." + strconv.Itoa(int(port))
	}
	return net.JoinHostPort(address, strconv.Itoa(int(port)))
}

// Each calls do for every pooler at the same time and blocks until all have returned. The errors are in
// the poolers' order, nil where there was none.
func Each(poolers []*Pooler, do func(*Pooler) error) []error {
	errs := make([]error, len(poolers))
	var all sync.WaitGroup
	for i, p := range poolers {
		all.Go(func() { errs[i] = do(p) })
	}
	all.Wait()
	return errs
}
