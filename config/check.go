package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const defaultLease = 30 * time.Second

func (l *loader) fillDefaults() {
	c := &l.config
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	wait := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if c.Apart() {
		def(&c.Patroni.URL, c.Patroni.URLs[0])
	}
	def(&c.Patroni.URL, "http://127.0.0.1:8008")
	def(&c.Postgres, "host=/var/run/postgresql user=postgres dbname=postgres")
	wait(&c.Pause.Budget, 15*time.Second)
	// Who sets a small budget and no attempt wants an attempt that fits.
	wait(&c.Pause.Attempt, min(2*time.Second, c.Pause.Budget))
	def(&c.Pause.OnTimeout, OnTimeoutHold)
	wait(&c.Pause.Lease, defaultLease)
	wait(&c.Pause.ShutdownBudget, 5*time.Second)
	if !l.seen["pause.stop_server"] {
		c.Pause.StopServer = true
	}
	wait(&c.Resume.Timeout, 60*time.Second)
	def(&c.Serve.Listen, "127.0.0.1:8009")
	def(&c.Serve.ClientScope, ScopeOperate)
	def(&c.Serve.Reconcile, ReconcileOff)
	if l.options.Reconcile && c.Serve.Reconcile == ReconcileOff {
		c.Serve.Reconcile = ReconcileOwn
	}
	wait(&c.Serve.Grace, 20*time.Second)
}

// where is the place of a key's value, for an error about how two values go together.
func (l *loader) where(key string) value {
	v, ok, err := l.weightiest(key)
	if !ok || err != nil {
		return value{at: Error{Name: key}}
	}
	return v
}

// check finds values that do not go together.
func (l *loader) check() {
	c := &l.config
	if p := c.Pause; p.Attempt > p.Budget {
		l.wrong(l.where("pause.attempt").fail(fmt.Sprintf("%s is longer than pause.budget %s", p.Attempt, p.Budget), "", nil))
		c.Pause.Attempt = p.Budget
	}
	if p := c.Pause; p.Lease <= p.Attempt {
		l.wrong(l.where("pause.lease").fail(fmt.Sprintf("%s is not longer than pause.attempt %s", p.Lease, p.Attempt),
			"a pause would end before it began", nil))
		c.Pause.Lease = p.Attempt + defaultLease
	}
	for _, other := range []string{"patroni.url", "patroni.config"} {
		if c.Apart() && l.seen[other] {
			l.wrong(l.where("patroni.urls").fail("does not go together with "+other,
				"patroni.urls is for a machine that has poolers and no member of the cluster", nil))
		}
	}
	l.checkVersion("versions.postgres", &c.Versions.Postgres)
	l.checkVersion("versions.pgbouncer", &c.Versions.PgBouncer)
	// Patroni's own certfile may hold the key, too.
	if p := &c.Patroni; (p.CertFile == "") != (p.KeyFile == "") && p.Config == "" {
		given := "patroni.cert_file"
		if p.CertFile == "" {
			given = "patroni.key_file"
		}
		l.wrong(l.where(given).fail("patroni.cert_file and patroni.key_file go together", "", nil))
		p.CertFile, p.KeyFile = "", ""
	}
	if m := &c.Members; (m.CertFile == "") != (m.KeyFile == "") {
		given := "members.cert_file"
		if m.CertFile == "" {
			given = "members.key_file"
		}
		l.wrong(l.where(given).fail("members.cert_file and members.key_file go together", "", nil))
		m.CertFile, m.KeyFile = "", ""
	}
	l.checkServe()
}

func (l *loader) checkVersion(key string, s *VersionSource) {
	var set []string
	for name, v := range map[string]string{"setting": s.Setting, "file": s.File, "line": s.Line} {
		if v != "" {
			set = append(set, name)
		}
	}
	if slices.Sort(set); len(set) > 1 {
		at := l.where(key + "." + set[0]).at
		at.Name = key
		l.wrong(value{at: at}.fail("has "+strings.Join(set, " and "), "one of them is enough", nil))
		*s = VersionSource{}
	}
}

// checkServe finds keys that need another one. The values stay: a serve that would listen with less than was meant must not start.
func (l *loader) checkServe() {
	s := l.config.Serve
	for _, pair := range []struct {
		key, of, other string
		without        bool
	}{
		{"serve.cert_file", s.CertFile, "serve.key_file", s.KeyFile == ""},
		{"serve.key_file", s.KeyFile, "serve.cert_file", s.CertFile == ""},
		{"serve.client_ca_file", s.ClientCAFile, "serve.cert_file", s.CertFile == ""},
		{"serve.client_key_pins", strings.Join(s.ClientKeyPins, ""), "serve.client_ca_file", s.ClientCAFile == ""},
	} {
		if pair.of != "" && pair.without {
			l.wrong(l.where(pair.key).fail("needs "+pair.other, "", nil))
		}
	}
}
