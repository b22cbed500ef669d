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

// connPair is one parameter, with where its value stands, quotes included.
type connPair struct {
	key, value string
	from, to   int
}

// scanConnString takes it apart as PgBouncer does: only blanks separate, a quoted value may be followed by anything,
// whose first byte is lost, and a value must not be empty.
func scanConnString(s string) ([]connPair, error) {
	var pairs []connPair
	pos := 0
	blanks := func() {
		for pos < len(s) && s[pos] == ' ' {
			pos++
		}
	}
	for {
		blanks()
		if pos >= len(s) {
			return pairs, nil
		}
		start := pos
		for pos < len(s) && s[pos] != '=' && s[pos] != ' ' {
			pos++
		}
		p := connPair{key: s[start:pos]}
		blanks()
		if p.key == "" || pos >= len(s) || s[pos] != '=' {
			return nil, errConnString
		}
		pos++
		blanks()
		p.from = pos
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
		p.value, p.to = value.String(), pos
		if pos < len(s) {
			pos++
		}
		if p.value == "" {
			return nil, errConnString
		}
		pairs = append(pairs, p)
	}
}

// parseConnString keeps of it what may be shown.
func parseConnString(s string) (*connString, error) {
	pairs, err := scanConnString(s)
	if err != nil {
		return nil, err
	}
	c := &connString{}
	for _, p := range pairs {
		if connShown().MatchString(p.key) {
			c.pairs = append(c.pairs, [2]string{p.key, p.value})
			continue
		}
		c.secret = c.secret || mayHoldSecret(p.key)
		c.pairs = append(c.pairs, [2]string{p.key, hidden})
	}
	return c, nil
}
