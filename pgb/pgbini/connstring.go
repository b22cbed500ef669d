package pgbini

import (
	"errors"
	"regexp"
	"strings"
	"sync"
)

// connString is what stands after "name =" outside of [pgbouncer].
type connString struct {
	pairs  [][2]string // secrets without their value
	secret bool        // there is one
	bad    bool
}

func (c *connString) get(key string) (value string, ok bool) {
	for _, p := range c.pairs {
		if p[0] == key {
			value, ok = p[1], true // the last one counts
		}
	}
	return value, ok
}

// connShown are the parameters whose values are kept: those that SHOW DATABASES shows and a few that are checked. connect_query, for
// one, may have a password in it, and nothing shows it.
var connShown = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(
		`^(host|port|dbname|user|pool_size|min_pool_size|reserve_pool|reserve_pool_size|pool_mode|max_db_connections|` +
			`max_db_client_connections|server_lifetime|load_balance_hosts)$`,
	)
})

var errConnString = errors.New("syntax error in the connection string")

// parseConnString takes it apart as PgBouncer does: only blanks separate, a quoted value may be followed by anything,
// whose first byte is lost, and a value must not be empty.
func parseConnString(s string) (*connString, error) {
	c := &connString{}
	pos := 0
	blanks := func() {
		for pos < len(s) && s[pos] == ' ' {
			pos++
		}
	}
	for {
		blanks()
		if pos >= len(s) {
			return c, nil
		}
		start := pos
		for pos < len(s) && s[pos] != '=' && s[pos] != ' ' {
			pos++
		}
		key := s[start:pos]
		blanks()
		if key == "" || pos >= len(s) || s[pos] != '=' {
			return nil, errConnString
		}
		pos++
		blanks()
		var value strings.Builder
		if pos < len(s) && s[pos] == '\'' {
			pos++
			for {
				if pos >= len(s) {
					return nil, errConnString
				}
				if s[pos] == '\'' {
					pos++
					if pos >= len(s) || s[pos] != '\'' {
						break
					}
				}
				value.WriteByte(s[pos])
				pos++
			}
		} else {
			start := pos
			for pos < len(s) && s[pos] != ' ' {
				pos++
			}
			value.WriteString(s[start:pos])
		}
		if pos < len(s) {
			pos++
		}
		switch {
		case value.Len() == 0:
			return nil, errConnString
		case connShown().MatchString(key):
			c.pairs = append(c.pairs, [2]string{key, value.String()})
		default:
			c.secret = c.secret || mayHoldSecret(key)
			c.pairs = append(c.pairs, [2]string{key, hidden})
		}
	}
}
