package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/file"
)

// plainUser is a user name that cannot be half of a misplaced password.
const plainUser = `^[A-Za-z0-9_.-]{1,63}$`

// maskDSN is what an error may show of a connection string that may be malformed in any way: in
// such a string nobody knows where a password ends, so only what surely is none is shown.
func maskDSN(dsn string) string {
	scheme, rest, isURL := cutScheme(dsn)
	if !isURL {
		var keys []string
		shown := regexp.MustCompile(`(?:^|\s)(host|hostaddr|port|user|dbname|password|sslmode|sslrootcert|passfile|service)\s*=`)
		for _, m := range shown.FindAllStringSubmatch(dsn, -1) {
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

// holdsPassword reports whether a connection string has a password in it, however that is spelt: pgconn itself tells the keys that it
// reads. (Its parsed form does not tell: that one may come from a pgpass file or PGPASSWORD.) Of a string that it cannot read nobody can
// tell: then whatever looks like a password counts.
func holdsPassword(dsn string) bool {
	isPassword := func(key string) bool { return key == "password" || key == "sslpassword" }
	allowed := slices.DeleteFunc(connectionKeys(), isPassword)
	key, parsed := forbiddenKey(dsn, allowed)
	for range maxKeys {
		if isPassword(key) {
			return true
		}
		if key == "" {
			break
		}
		allowed = append(allowed, key) // unknown, and not what is asked here
		key, parsed = forbiddenKey(dsn, allowed)
	}
	_, rest, isURL := cutScheme(dsn)
	if !isURL {
		// libpq reads a connection string in dbname; pgconn does not.
		for _, v := range settingsOf(dsn) {
			if _, _, ok := cutScheme(v); ok && holdsPassword(v) {
				return true
			}
		}
	}
	if parsed || key != "" {
		return false
	}
	authority, _, _ := strings.Cut(rest, "/")
	at := strings.LastIndex(authority, "@")
	return strings.Contains(strings.ToLower(dsn), "password") || isURL && at >= 0 && strings.Contains(authority[:at], ":")
}

// maxKeys is more than any connection string has.
const maxKeys = 100

// connectionKeys are those of connection strings: libpq's, as far as pgconn (5.12) knows them. Like libpq we take no others: pgconn
// sends what it does not know to the server, in the clear, and the server writes it into its log; with a password under a misspelt key,
// that too.
func connectionKeys() []string {
	return []string{
		"host",
		"port",
		"dbname",
		"user",
		"password",
		"passfile",
		"connect_timeout",
		"sslmode",
		"sslkey",
		"sslcert",
		"sslcertmode",
		"sslrootcert",
		"sslnegotiation",
		"sslpassword",
		"sslsni",
		"krbspn",
		"krbsrvname",
		"target_session_attrs",
		"service",
		"servicefile",
		"min_protocol_version",
		"max_protocol_version",
		"channel_binding",
		"require_auth",
		"application_name",
		"client_encoding",
		"options",
	}
}

var notAllowed = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?s)connection string key (".*") is not in ConnStringAllowedKeys$`)
})

// forbiddenKey is a key of a connection string that is not among those that are allowed; "" when there is none. parsed is false where the
// string could not be read that far. No file is opened: after the keys pgconn looks for the service, of which there is none here.
func forbiddenKey(dsn string, allowed []string) (key string, parsed bool) {
	dsn = with(with(dsn, "service", ""), "servicefile", "")
	_, err := pgconn.ParseConfigWithOptions(dsn, pgconn.ParseConfigOptions{ConnStringAllowedKeys: allowed})
	if err == nil {
		return "", true
	}
	if m := notAllowed().FindStringSubmatch(err.Error()); m != nil {
		if unquoted, err := strconv.Unquote(m[1]); err == nil {
			return unquoted, true
		}
	}
	return "", !strings.Contains(err.Error(), "failed to parse as")
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
	for _, key := range fileKeys() {
		if path := settingsOf(dsn)[key]; path != "" && key != "passfile" {
			// pgconn would wait for a writer of a named pipe.
			if irregular, ok := errors.AsType[*file.NotRegularError](tryOpen(path)); ok {
				return fmt.Sprintf("%s: %s %v", cannot, key, irregular), "", irregular
			}
		}
	}
	key, _ := forbiddenKey(dsn, connectionKeys())
	if key != "" {
		// A part of a password can be taken for a key, so the key itself is not shown.
		hint := "known are " + strings.Join(connectionKeys(), ", ") + "; a setting of the server is written as options='-c NAME=VALUE'"
		if near := nearest(key, connectionKeys()); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		return cannot + ": it has an unknown key", hint, nil
	}
	_, err := parse(dsn)
	if err == nil {
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
	return cannot, "write postgres://USER@HOST:PORT/DATABASE, or host=HOST port=PORT user=USER dbname=DATABASE; " +
		"special characters in a URL percent-encoded, in the other form in single quotes", nil
}

// fileKeys are the keys of connection strings that name files.
func fileKeys() []string {
	return []string{"sslrootcert", "sslcert", "sslkey", "passfile", "servicefile"}
}

func tryOpen(path string) error {
	f, err := file.Open(path)
	if err == nil {
		_ = f.Close()
	}
	return err
}

var keywordValue = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?s)([^=\s\v]+)[\s\v]*=[\s\v]*(?:'((?:\\.|[^'\\])*)'|((?:\\.|[^\s\v\\])*))`)
})

// settingsOf is what a connection string that pgconn takes says by key: all of it in the keyword form, the part behind the ? of a URL.
func settingsOf(dsn string) map[string]string {
	out := map[string]string{}
	if _, rest, isURL := cutScheme(dsn); isURL {
		_, query, _ := strings.Cut(rest, "?")
		for pair := range strings.SplitSeq(query, "&") {
			key, v, _ := strings.Cut(pair, "=")
			key, wrong := url.PathUnescape(strings.Trim(key, " "))
			v, alsoWrong := url.PathUnescape(strings.Trim(v, " "))
			if wrong == nil && alsoWrong == nil && key != "" {
				out[key] = v
			}
		}
		return out
	}
	unescape := regexp.MustCompile(`(?s)\\(.)`)
	for _, m := range keywordValue().FindAllStringSubmatch(dsn, -1) {
		out[m[1]] = unescape.ReplaceAllString(m[2]+m[3], "$1")
	}
	return out
}

// with is a connection string with one more value: of a key that is there twice the last counts.
func with(dsn, key, v string) string {
	if _, rest, isURL := cutScheme(dsn); isURL {
		mark := "?"
		if strings.Contains(rest, "?") {
			mark = "&"
		}
		return dsn + mark + key + "=" + strings.ReplaceAll(url.QueryEscape(v), "+", "%20")
	}
	return dsn + " " + key + "=" + quoteDSN(v)
}

// absoluteDSN is a connection string of a file in which no path depends on the working directory: certificates and password files are
// looked for beside the file. Where the string comes from no file, relative is the key of the first path that is not absolute.
func absoluteDSN(dsn, from string) (absolute, relative string) {
	settings := settingsOf(dsn)
	for _, key := range fileKeys() {
		path := settings[key]
		if path == "" || filepath.IsAbs(path) || key == "sslrootcert" && path == "system" {
			continue
		}
		if from == "" {
			return dsn, key
		}
		dsn = with(dsn, key, filepath.Join(filepath.Dir(from), path))
	}
	return dsn, ""
}

// parse is pgconn's, but for the password file: a named pipe in its place would keep us.
func parse(dsn string) (*pgconn.Config, error) { return pgconn.ParseConfig(with(dsn, "passfile", "")) }

// describeDSN is a valid connection string without anything secret, for people.
func describeDSN(dsn string) string {
	if dsn == "" {
		return ""
	}
	if problem, _, _ := checkDSN(dsn); problem != "" {
		return maskDSN(dsn)
	}
	c, err := parse(dsn)
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
