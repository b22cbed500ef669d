package config

import (
	"fmt"
	"log/slog"
	"strings"
)

// Each value that holds a password has the four methods through which fmt, log/slog and
// encoding/json look at values, so that no log line shows one by accident.

func (c Config) String() string {
	poolers := make([]string, len(c.Poolers))
	for i, p := range c.Poolers {
		poolers[i] = p.String()
	}
	return fmt.Sprintf("config{file=%q patroni=%s postgres=%q poolers=[%s] pause=%+v resume={route=%q timeout=%s} state_dir=%q}",
		c.File, c.Patroni, describeDSN(c.Postgres), strings.Join(poolers, " "), c.Pause,
		describeDSN(c.Resume.Route), c.Resume.Timeout, c.StateDir)
}
func (c Config) GoString() string             { return c.String() }
func (c Config) LogValue() slog.Value         { return slog.StringValue(c.String()) }
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

func (p Patroni) String() string {
	return fmt.Sprintf(
		"{url=%q username=%q password=%s ca_file=%q cert_file=%q}",
		p.URL,
		p.Username,
		hidden(p.Password),
		p.CAFile,
		p.CertFile,
	)
}
func (p Patroni) GoString() string             { return p.String() }
func (p Patroni) LogValue() slog.Value         { return slog.StringValue(p.String()) }
func (p Patroni) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

func (p Pooler) String() string {
	return fmt.Sprintf("{dsn=%q password=%s resolve=%s databases=%s pidfile=%q config=%q follow=%q}",
		describeDSN(p.DSN), hidden(p.Password), p.Resolve, p.Databases, p.Pidfile, p.Config, p.Follow)
}
func (p Pooler) GoString() string             { return p.String() }
func (p Pooler) LogValue() slog.Value         { return slog.StringValue(p.String()) }
func (p Pooler) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

func (r Resume) String() string {
	return fmt.Sprintf("{route=%q timeout=%s}", describeDSN(r.Route), r.Timeout)
}
func (r Resume) GoString() string             { return r.String() }
func (r Resume) LogValue() slog.Value         { return slog.StringValue(r.String()) }
func (r Resume) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// String is what the file says: all, auto, or the names.
func (d Databases) String() string {
	switch {
	case d.Auto:
		return "auto"
	case d.Names != nil:
		return strings.Join(d.Names, ",")
	}
	return "all"
}

func hidden(password string) string {
	if password == "" {
		return "none"
	}
	return "***"
}
