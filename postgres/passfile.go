package postgres

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// passfile is the password file that a connection string which pgconn has parsed leads to, as pgconn finds it: the string's own,
// PGPASSFILE, ~/.pgpass. (One that only a service file names is not found.)
func passfile(conninfo string) string {
	if path, ok := setting(conninfo, "passfile"); ok {
		return path
	}
	if path := os.Getenv("PGPASSFILE"); path != "" {
		return path
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".pgpass")
}

func isURL(conninfo string) bool {
	return strings.HasPrefix(conninfo, "postgres://") || strings.HasPrefix(conninfo, "postgresql://")
}

// afterLogin is a URL from its first host on.
func afterLogin(conninfo string) string {
	_, rest, _ := strings.Cut(conninfo, "://")
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		rest = rest[i+1:]
	}
	return rest
}

// setting is the value of one key in a connection string that is known to parse; the last one counts. pgconn does not tell it.
func setting(conninfo, key string) (value string, ok bool) {
	if isURL(conninfo) {
		_, query, _ := strings.Cut(afterLogin(conninfo), "?")
		for pair := range strings.SplitSeq(query, "&") {
			k, v, _ := strings.Cut(pair, "=")
			k, kErr := url.PathUnescape(strings.Trim(k, " "))
			v, vErr := url.PathUnescape(strings.Trim(v, " "))
			if kErr == nil && vErr == nil && k == key {
				value, ok = v, true
			}
		}
		return value, ok
	}
	const space = " \t\n\r\v\f"
	for s := strings.TrimLeft(conninfo, space); s != ""; s = strings.TrimLeft(s, space) {
		k, rest, isPair := strings.Cut(s, "=")
		if !isPair {
			break
		}
		var v string
		v, s = keywordValue(strings.TrimLeft(rest, space))
		if strings.Trim(k, space) == key {
			value, ok = v, true
		}
	}
	return value, ok
}

// keywordValue cuts off the value that a text begins with: in single quotes or up to a space, with backslashes before what is meant as it
// stands.
func keywordValue(s string) (value, rest string) {
	var v strings.Builder
	quoted := strings.HasPrefix(s, "'")
	if quoted {
		s = s[1:]
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			if i++; i < len(s) {
				v.WriteByte(s[i])
			}
		case quoted && c == '\'', !quoted && strings.IndexByte(" \t\n\r\v\f", c) >= 0:
			return v.String(), s[i+1:]
		default:
			v.WriteByte(c)
		}
	}
	return v.String(), ""
}
