package pgb

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"net"
	"strings"
	"sync"
)

// Reload sends RELOAD and blocks until PgBouncer has read its files or the context ends. Since 1.25 a file that it
// refuses is a [*ServerError] with the code [CodeBadFile] and "RELOAD failed, see logs for additional details"; before, it answers
// RELOAD all the same. In neither case does it say what is wrong: see [ReadFile] and [File.Diff]. Another [*ServerError] says nothing of the file:
// a user of stats_users is told "admin access needed".
func (p *Pooler) Reload(ctx context.Context) error {
	_, err := p.exec(ctx, "RELOAD")
	return err
}

// Setting is a line of SHOW CONFIG.
type Setting struct {
	Key        string
	Value      string // what is in force; "***" where it may hold a secret
	Default    string // of this version; "" also where there is none
	Changeable bool   // by RELOAD; the others are read at the start only

	sum digest // of the value that Value does not show
}

// Settings lists what is in force (SHOW CONFIG), in PgBouncer's order.
func (p *Pooler) Settings(ctx context.Context) ([]Setting, error) {
	result, err := p.exec(ctx, "SHOW CONFIG")
	if err != nil {
		return nil, err
	}
	settings := make([]Setting, 0, len(result.Rows))
	for row := range result.Rows {
		s := Setting{
			Key:        result.Get(row, "key"),
			Value:      result.Get(row, "value"),
			Default:    result.Get(row, "default"),
			Changeable: result.Get(row, "changeable") == "yes",
		}
		if mayHoldSecret(s.Key) {
			s.sum, s.Value = digestOf(s.Value), hide(s.Value)
		}
		settings = append(settings, s)
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

const hidden = "***"

// hide is what is shown of a secret; that there is none may be seen.
func hide(value string) string {
	if value == "" {
		return ""
	}
	return hidden
}

// mayHoldSecret tells it by the name: auth_ldap_options has ldapbindpasswd in it.
func mayHoldSecret(key string) bool {
	key = strings.ToLower(key)
	for _, part := range []string{"pass", "secret", "ldap", "token", "credential"} {
		if strings.Contains(key, part) {
			return true
		}
	}
	return false
}

// digest tells two secrets apart without keeping them. The key is this process's own, so that a digest is of no
// use to anybody else.
type digest [sha256.Size]byte

var digestKey = sync.OnceValue(func() []byte {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // does not fail (crypto/rand)
	return key
})

func digestOf(secret string) digest {
	mac := hmac.New(sha256.New, digestKey())
	mac.Write([]byte(secret))
	return digest(mac.Sum(nil))
}

// Port is the port of the console's address, 0 for a pooler without a console. A Unix socket has one in its name.
func (p *Pooler) Port() uint16 {
	if p.config == nil {
		return 0
	}
	return p.config.Port
}
