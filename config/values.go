package config

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/config/yamlfile"
)

// value is one scalar and where it comes from.
type value struct {
	text string // ${NAME} replaced
	raw  string // as written: what an error may show
	at   Error  // file, line and key, for an error
}

func (v value) fail(problem, hint string, cause error) error {
	e := v.at
	e.Problem, e.Hint, e.Err = problem, hint, cause
	return &e
}

// scalarValue is a value of the file; line is its key's.
func (l *loader) scalarValue(path string, v yamlfile.Value, line int, key string) (value, error) {
	at := Error{File: path, Line: line, Name: key}
	raw, ok := v.Scalar()
	if !ok {
		at.Problem = "must be a single value"
		return value{}, &at
	}
	return l.newValue(raw, at)
}

// listValue is a list of the file as one value, its items with commas between.
func (l *loader) listValue(path string, e yamlfile.Entry, key string) (value, error) {
	items, isList := e.Value.Sequence()
	if !isList {
		return l.scalarValue(path, e.Value, e.Key.Line(), key)
	}
	if len(items) == 0 {
		return value{}, &Error{File: path, Line: e.Key.Line(), Name: key, Problem: "is an empty list", Hint: "leave it out"}
	}
	var all []string
	for _, item := range items {
		v, err := l.scalarValue(path, item, item.Line(), key)
		if err != nil {
			return value{}, err
		}
		all = append(all, v.raw)
	}
	return l.newValue(strings.Join(all, ","), Error{File: path, Line: e.Key.Line(), Name: key})
}

func (l *loader) newValue(raw string, at Error) (value, error) {
	text, err := l.expand(raw)
	if err != nil {
		at.Problem = err.Error()
		return value{}, &at
	}
	return value{text: text, raw: raw, at: at}, nil
}

// expand replaces ${NAME}. "$${" stands for "${".
func (l *loader) expand(raw string) (string, error) {
	var b strings.Builder
	for {
		i := strings.Index(raw, "${")
		if i < 0 {
			b.WriteString(raw)
			return b.String(), nil
		}
		if i > 0 && raw[i-1] == '$' {
			b.WriteString(raw[:i-1] + "${")
			raw = raw[i+2:]
			continue
		}
		name, rest, ok := strings.Cut(raw[i+2:], "}")
		if !ok || !isName(name) {
			// Not shown: after a stray ${ a password may follow.
			return "", errors.New("has a ${ that is not ${NAME}; write $${ for the two characters themselves")
		}
		v, set := l.options.LookupEnv(name)
		if !set && name == "HOSTNAME" {
			host, err := os.Hostname()
			if err != nil {
				return "", fmt.Errorf("${HOSTNAME}: %w", err)
			}
			v, set = host, true
		}
		if !set {
			return "", fmt.Errorf("the environment variable %s is not set", name)
		}
		b.WriteString(raw[:i] + v)
		raw = rest
	}
}

func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

func setText(to *string) func(value) error {
	return func(v value) error { *to = v.text; return nil }
}

// setPath reads a relative path as one beside the file that it stands in.
func setPath(to *string) func(value) error {
	return func(v value) error {
		if v.text == "" || strings.ContainsRune(v.text, 0) {
			return v.fail("is not a path", "", nil)
		}
		if strings.Contains(v.text, "://") { // not shown: there may be a password in it
			return v.fail("is a URL, and must be a path", "", nil)
		}
		*to = v.text
		if v.at.File == "" && !filepath.IsAbs(v.text) {
			return v.fail("must be an absolute path", "Patroni's working directory is not yours", nil)
		}
		if !filepath.IsAbs(v.text) {
			*to = filepath.Join(filepath.Dir(v.at.File), v.text)
		}
		return nil
	}
}

func setURL(to *string) func(value) error {
	return func(v value) error {
		const hint = "write http://HOST:8008 or https://HOST:8008"
		u, err := url.Parse(v.text)
		// The error is not shown: it repeats the URL.
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
			return v.fail("is not a URL of Patroni's REST API", hint, nil)
		}
		if u.User != nil {
			return v.fail("has a user in it", "use patroni.username and patroni.password_file", nil)
		}
		// Below /patroni Patroni answers 200 to everything: a replica would seem to hold the lock.
		if u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
			return v.fail("has something behind the port", hint, nil)
		}
		if port := u.Port(); port != "" {
			if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
				return v.fail("has no possible port", hint, nil)
			}
		}
		*to = strings.TrimRight(v.text, "/")
		return nil
	}
}

// maxURLs is of how many members the REST APIs may be listed.
const maxURLs = 100

// setURLs reads several, with commas between.
func setURLs(to *[]string) func(value) error {
	return func(v value) error {
		var urls []string
		for text := range strings.SplitSeq(v.text, ",") {
			one := v
			one.text = strings.TrimSpace(text)
			var url string
			if err := setURL(&url)(one); err != nil {
				return err
			}
			if urls = append(urls, url); len(urls) > maxURLs {
				return v.fail(fmt.Sprintf("lists more than %d", maxURLs), "", nil)
			}
		}
		*to = urls
		return nil
	}
}

// setAgent reads the URL of a serve.
func setAgent(to *string) func(value) error {
	return func(v value) error {
		const hint = "write https://HOST:8009"
		u, err := url.Parse(v.text)
		switch { // the error is not shown: it repeats the URL
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
			return v.fail("is not a URL of pgbaton serve", hint, nil)
		case u.User != nil:
			return v.fail("has a user in it", "use members.token_file", nil)
		case u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
			return v.fail("has something behind the port", hint, nil)
		}
		*to = strings.TrimRight(v.text, "/")
		return nil
	}
}

// setMembersURL reads a URL in which {host} or {name} stands for another member's.
func setMembersURL(to *string) func(value) error {
	return func(v value) error {
		const hint = "write https://{host}:8009"
		m := Members{URL: v.text}
		u, err := url.Parse(m.For("m1", "host"))
		switch { // the error is not shown: it repeats the URL
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.ContainsAny(u.Host, "{}"):
			return v.fail("is not a URL of pgbaton serve", hint, nil)
		case u.User != nil:
			return v.fail("has a user in it", "use members.token_file", nil)
		case u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
			return v.fail("has something behind the port", hint, nil)
		case m.For("m1", "a") == m.For("m2", "b"):
			return v.fail("is the same for all members", hint, nil)
		}
		*to = strings.TrimRight(v.text, "/")
		return nil
	}
}

func setListen(to *string) func(value) error {
	return func(v value) error {
		host, port, err := net.SplitHostPort(v.text)
		if n, wrong := strconv.Atoi(port); err != nil || wrong != nil || n < 0 || n > 65535 || strings.ContainsAny(host, "/@ ") {
			return v.fail("is not HOST:PORT", "write 127.0.0.1:8009", nil)
		}
		*to = v.text
		return nil
	}
}

func setPins(to *[]string) func(value) error {
	return func(v value) error {
		*to = nil
		for pin := range strings.SplitSeq(v.text, ",") {
			pin = strings.TrimSpace(pin)
			if sum, err := base64.StdEncoding.DecodeString(pin); err != nil || len(sum) != sha256.Size {
				return v.fail(
					"has a pin that is not the base64 of a SHA-256",
					"openssl x509 -in client.pem -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64",
					nil,
				)
			}
			*to = append(*to, pin)
		}
		return nil
	}
}

// setDSN reads a relative path in a connection string as one beside the file that it stands in.
func setDSN(to *string) func(value) error {
	return func(v value) error {
		dsn, relative := absoluteDSN(v.text, v.at.File)
		if relative != "" {
			return v.fail(relative+" must be an absolute path", "Patroni's working directory is not yours", nil)
		}
		if problem, hint, cause := checkDSN(dsn); problem != "" {
			return v.fail(problem, hint, cause)
		}
		*to = dsn
		return nil
	}
}

// setPatroniConfig is setPath, but for the word that says that there is no file.
func setPatroniConfig(to *string) func(value) error {
	return func(v value) error {
		if v.text == PatroniEnvironment {
			*to = v.text
			return nil
		}
		return setPath(to)(v)
	}
}

func setEnum(to *string, allowed ...string) func(value) error {
	return func(v value) error {
		if !slices.Contains(allowed, v.text) {
			return v.fail(fmt.Sprintf("%q is none of %s", clip(v.raw), strings.Join(allowed, ", ")), "", nil)
		}
		*to = v.text
		return nil
	}
}

func setDuration(to *time.Duration) func(value) error {
	return func(v value) error {
		d, err := time.ParseDuration(v.text)
		switch {
		case err != nil && isNumber(v.text):
			return v.fail(fmt.Sprintf("%q has no unit", clip(v.raw)), "write "+v.text+"s", nil)
		case err != nil:
			return v.fail(fmt.Sprintf("%q is not a duration", clip(v.raw)), "write 500ms, 15s or 1m30s", nil)
		case d == 0 && isNumber(v.text), d <= 0:
			return v.fail(fmt.Sprintf("%q is not longer than nothing", clip(v.raw)), "", nil)
		}
		*to = d
		return nil
	}
}

// ParseDuration reads a flag's duration with the same rules and words as one of the file.
func ParseDuration(source, text string) (time.Duration, error) {
	var d time.Duration
	err := setDuration(&d)(value{text: text, raw: text, at: Error{Name: source}})
	return d, err
}

func isNumber(s string) bool {
	return s != "" && len(s) < 20 && strings.Trim(s, "0123456789.") == "" && strings.Trim(s, ".") != ""
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}
