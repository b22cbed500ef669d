package peer

import (
	"regexp"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// MaxText is how much is kept of a text, in bytes.
const MaxText = 500

// Text makes one line of what a peer says, for logs, errors and terminals: at most [MaxText] bytes, "?" for what does not print (control
// characters, bytes that are no UTF-8, marks that turn the direction of writing), and "***" for the secrets and for what looks like a
// password: some servers repeat a connection string, and whoever was given a password can send it back.
func Text(s string, secrets ...string) string {
	const looked = 16 << 10 // a secret that goes across the end is cut off with it
	if len(s) > looked {
		s = s[:looked]
	}
	for _, secret := range secrets {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, hidden)
		}
	}
	s = header().ReplaceAllString(s, "${1}"+hidden)
	s = keyAndValue().ReplaceAllString(s, "${1}"+hidden)
	s = verifier().ReplaceAllString(s, hidden)
	s = inURL().ReplaceAllString(s, "${1}"+hidden+"@")
	s = strings.Map(func(c rune) rune {
		switch {
		case c == '\n' || c == '\t':
			return ' '
		case c == utf8.RuneError || !unicode.IsPrint(c):
			return '?'
		}
		return c
	}, s)
	return clip(s, MaxText)
}

const hidden = "***"

var (
	keyAndValue = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?i)((?:pass(?:word|wd|phrase)?|pwd|secret|token)["']?\s*[=:]\s*)` +
			`(?:'(?:[^'\\]|\\.|'')*'?|"(?:[^"\\]|\\.)*"?|[^\s'"][^\s]*)`)
	})
	// An HTTP header, which some proxies repeat in their error page.
	header = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?i)(authorization["']?\s*[=:]\s*)(?:["']?\w+\s+)?[^\s"']+["']?`)
	})
	// What PostgreSQL and PgBouncer keep of a password: a hash can be guessed from, and PgBouncer logs in with that of MD5.
	verifier = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\bSCRAM-SHA-256\$\d+:[^\s"']+|\bmd5[0-9a-f]{32}\b`) })
	inURL    = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(://[^\s/@:]*:)\S*@`) })
)

// clip cuts a text at a whole character.
func clip(s string, most int) string {
	const more = "…"
	if len(s) <= most {
		return s
	}
	end := most - len(more)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + more
}

// Error is an error whose text is [Text] of another's. [errors.Is] and [errors.As] see the other one, which has the text as the peer sent
// it. nil stays nil.
func Error(err error, secrets ...string) error {
	if err == nil {
		return nil
	}
	return &said{text: Text(err.Error(), secrets...), err: err}
}

type said struct {
	text string
	err  error
}

func (e *said) Error() string { return e.text }

func (e *said) Unwrap() error { return e.err }
