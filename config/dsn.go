package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// plainUser is a user name that cannot be half of a misplaced password.
const plainUser = `^[A-Za-z0-9_.-]{1,63}$`

// maskDSN is what an error may show of a connection string that may be malformed in any way: in
// such a string nobody knows where a password ends, so only what surely is none is shown.
func maskDSN(dsn string) string {
	scheme, rest, isURL := cutScheme(dsn)
	if !isURL {
		var keys []string
		for _, m := range regexp.MustCompile(`(?:^|\s)(host|hostaddr|port|user|dbname|password|sslmode|sslrootcert|passfile|service)\s*=`).FindAllStringSubmatch(dsn, -1) {
			keys = append(keys, m[1]+"=***")
		}
		if len(keys) == 0 {
			return "***"
		}
		return strings.Join(keys, " ")
	}
	end := strings.IndexAny(rest, ":@/?#")
	if end < 0 || !strings.Contains(rest, "@") || !regexp.MustCompile(plainUser).MatchString(rest[:end]) {
		return scheme + "***"
	}
	switch rest[end] {
	case ':':
		return scheme + rest[:end] + ":***@..."
	case '@':
		return scheme + rest[:end] + "@..."
	}
	return scheme + "***"
}

func cutScheme(dsn string) (scheme, rest string, isURL bool) {
	for _, scheme := range []string{"postgres://", "postgresql://"} {
		if rest, ok := strings.CutPrefix(dsn, scheme); ok {
			return scheme, rest, true
		}
	}
	return "", dsn, false
}

// holdsPassword reports whether a connection string that parses has a password in it. (Its
// parsed form does not tell: that one may come from a pgpass file or PGPASSWORD.)
func holdsPassword(dsn string) bool {
	_, rest, isURL := cutScheme(dsn)
	if !isURL {
		return regexp.MustCompile(`(?:^|\s)(?:ssl)?password\s*=`).MatchString(dsn)
	}
	authority, query, _ := strings.Cut(rest, "?")
	if at := strings.LastIndex(authority, "@"); at >= 0 && strings.Contains(authority[:at], ":") {
		return true
	}
	for pair := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if decoded, err := url.PathUnescape(name); err == nil {
			name = decoded
		}
		if strings.HasSuffix(name, "password") {
			return true
		}
	}
	return false
}

// checkDSN says in our own words why a connection string cannot be used; "" when it can.
// pgconn's own text repeats the string and is not passed on.
func checkDSN(dsn string) (problem, hint string, cause error) {
	cannot := fmt.Sprintf("cannot parse %q", maskDSN(dsn))
	if dsn == "" {
		return "is empty", "write postgres://USER@HOST:PORT/DATABASE", nil
	}
	_, rest, isURL := cutScheme(dsn)
	if isURL {
		// pgconn ends the password at the first @, url.Parse at the last: neither can know.
		if authority, _, _ := strings.Cut(rest, "/"); strings.Count(authority, "@") > 1 {
			return cannot, "more than one @; in a user or password write @ as %40", nil
		}
		// postgres://u:12/34@h parses, as port 12 and database "34@h": the password would be
		// shown wherever a database name is.
		if i := strings.IndexAny(rest, "/?#"); i >= 0 && strings.Contains(rest[i:], "@") {
			return cannot, "an @ after the host; in a user or password write @ as %40, / as %2F, ? as %3F, # as %23", nil
		}
	} else if strings.Contains(dsn, "://") {
		return cannot, "the scheme must be postgres:// or postgresql://", nil
	}
	parsed, err := pgconn.ParseConfig(dsn)
	if err == nil {
		// What pgconn does not know it sends to the server as a parameter, in the clear, and the server
		// writes it into its log: with a password under a misspelt key, that too.
		for _, key := range slices.Sorted(maps.Keys(parsed.RuntimeParams)) {
			if meant := misspelt(key); meant != "" {
				return cannot, fmt.Sprintf("it has a key that is none; %q is the right one", meant), nil
			}
		}
		return "", "", nil
	}
	var path *fs.PathError
	if errors.As(err, &path) && strings.HasPrefix(path.Path, "/") {
		return fmt.Sprintf("%s: a file it names cannot be read: %v", cannot, path.Err), "", path.Err
	}
	text := err.Error()
	for _, known := range []struct{ in, hint string }{
		{"invalid port", "the port is no number; or a : / ? # @ in the password that must be percent-encoded"},
		{"sslmode is invalid", "sslmode is disable, allow, prefer, require, verify-ca or verify-full"},
		{"invalid connect_timeout", "connect_timeout is a whole number of seconds"},
		{"failed to configure TLS", "the TLS settings cannot be used together"},
		{"failed to read service", "the service is not in the service file"},
	} {
		if strings.Contains(text, known.in) {
			return cannot, known.hint, nil
		}
	}
	return cannot, "write postgres://USER@HOST:PORT/DATABASE, or host=HOST port=PORT user=USER dbname=DATABASE; special characters in a URL percent-encoded, in the other form in single quotes", nil
}

// connectionKeys are what connection strings have for pgconn and libpq themselves.
var connectionKeys = []string{"host", "hostaddr", "port", "dbname", "database", "user", "password", "passfile", "connect_timeout", "sslmode", "sslkey", "sslcert",
	"sslcertmode", "sslrootcert", "sslnegotiation", "sslpassword", "sslsni", "target_session_attrs", "service", "servicefile", "channel_binding", "require_auth"}

// misspelt is the key that a parameter for the server was probably meant to be; "" when it is a parameter for all that
// anybody can tell. A part of a password can be taken for a key, so the key itself is not shown.
func misspelt(key string) string {
	key = strings.ToLower(key)
	switch key {
	case "application_name", "options", "client_encoding", "hostaddr", "password_encryption":
		return ""
	case "pass", "pwd", "pw", "secret":
		return "password"
	case "username", "usr", "login":
		return "user"
	case "db", "dbase":
		return "dbname"
	case "hostname", "server", "address":
		return "host"
	}
	best, bestDistance := "", 2+1
	for _, k := range connectionKeys {
		if d := distance(key, k); d < bestDistance && d <= max(1, len(k)/4) {
			best, bestDistance = k, d
		}
	}
	if best == "" && (strings.Contains(key, "passw") || strings.HasPrefix(key, "pass")) {
		return "password"
	}
	return best
}

// describeDSN is a valid connection string without anything secret, for people.
func describeDSN(dsn string) string {
	if dsn == "" {
		return ""
	}
	if problem, _, _ := checkDSN(dsn); problem != "" {
		return maskDSN(dsn)
	}
	c, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return maskDSN(dsn)
	}
	address := c.Host
	if !strings.HasPrefix(address, "/") {
		address = net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
	}
	return fmt.Sprintf("%s@%s/%s", c.User, address, c.Database)
}

// quoteDSN is one value of the keyword form.
func quoteDSN(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}

// nearest is the known word with the smallest edit distance, or "" when none is near.
func nearest(word string, known []string) string {
	word = strings.ToLower(word)
	// The room counts for nothing here: in "poolers[].x" most letters are always right.
	last := word[strings.LastIndex(word, ".")+1:]
	best, bestDistance := "", max(2, len(last)/3)+1
	for _, k := range known {
		if d := distance(word, k); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	if best != "" {
		return best
	}
	// "budget" alone was meant for the room it lives in.
	i := slices.IndexFunc(known, func(k string) bool { return strings.HasSuffix(k, "."+last) })
	if i >= 0 {
		return known[i]
	}
	return ""
}

func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
