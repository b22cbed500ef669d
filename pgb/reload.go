package pgb

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

// Reload sends RELOAD and blocks until PgBouncer has read its files or the context ends. Since 1.25 a file that it refuses is a
// [*ServerError] with the code [CodeBadFile] and "RELOAD failed, see logs for additional details"; before, it answers RELOAD all the
// same. In neither case does it say what is wrong: see [pgbini.ReadFile] and [pgbini.File.Diff]. Another [*ServerError] says nothing of
// the file: a user of stats_users is told "admin access needed".
func (p *Pooler) Reload(ctx context.Context) error {
	_, err := p.exec(ctx, "RELOAD")
	return err
}

// Settings lists what is in force (SHOW CONFIG), in PgBouncer's order.
func (p *Pooler) Settings(ctx context.Context) ([]pgbini.Setting, error) {
	result, err := p.exec(ctx, "SHOW CONFIG")
	if err != nil {
		return nil, err
	}
	settings := make([]pgbini.Setting, 0, len(result.Rows))
	for row := range result.Rows {
		settings = append(settings, pgbini.NewSetting(result.Get(row, "key"), result.Get(row, "value"), result.Get(row, "default"),
			result.Get(row, "changeable") == "yes"))
	}
	return settings, nil
}

// Local reports whether the pooler runs on this host as far as its address tells: a Unix socket, a loopback address,
// an address of one of this host's interfaces, or no console at all (a pidfile only). A port forward is not seen
// through.
func (p *Pooler) Local() bool {
	if p.config == nil {
		return true
	}
	host := p.config.Host
	if strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") {
		return true
	}
	ip := net.ParseIP(host)
	if ip == nil {
		return false
	}
	if ip.IsLoopback() {
		return true
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip) {
			return true
		}
	}
	return false
}

// Port is the port of the console's address, 0 for a pooler without a console. A Unix socket has one in its name.
func (p *Pooler) Port() uint16 {
	if p.config == nil {
		return 0
	}
	return p.config.Port
}

// ListenedOnBy reports whether a pooler with these settings listens at this one's address. Who listens on all addresses does, so it has to
// be of the same machine.
func (p *Pooler) ListenedOnBy(settings []pgbini.Setting) bool {
	if p.config == nil {
		return false
	}
	listens, port := false, ""
	for _, s := range settings {
		switch s.Key {
		case "listen_port":
			port = s.Value
		case "listen_addr":
			for address := range strings.SplitSeq(s.Value, ",") {
				address = strings.TrimSpace(address)
				listens = listens || slices.Contains([]string{"*", "0.0.0.0", "::", p.config.Host}, address)
			}
		}
	}
	return listens && port == strconv.Itoa(int(p.config.Port))
}
