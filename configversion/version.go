package configversion

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDigits: any such number fits an int64 too, which other programs keep it in.
const maxDigits = 18

// shownBytes of a text that looks like a number stand in an error, and shownFirst of one that only begins like one. The rest is not
// shown: a source that names a file by mistake may name one of secrets.
const (
	shownBytes = 24
	shownFirst = 4
)

// ErrAbsent means that there is no version yet: no such file, an empty file, a file without the line. It may come. Anything else that
// [Source.Read] returns is a fault that somebody must see to.
var ErrAbsent = errors.New("no configuration version yet")

// ErrConflict means that a file says several versions.
var ErrConflict = errors.New("different configuration versions in one file")

// Version is the version of a configuration. The zero value is a version like any other.
type Version uint64

func (v Version) String() string { return strconv.FormatUint(uint64(v), 10) }

// SyntaxError says that a text is not a version.
type SyntaxError struct {
	Text string // quoted, printable, cut; "9 bytes that are not a number" where it may be a secret
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s is not a configuration version (a whole number, at most %d digits)", e.Text, maxDigits)
}

// Parse returns the version that text says: 1 to 18 digits 0 to 9, without a sign. White space around them is ignored, and zeros in front
// do not count as a different version: 042 is 42. Anything else is a *[SyntaxError].
func Parse(text string) (Version, error) {
	digits := strings.Trim(text, asciiSpace)
	if len(digits) == 0 || len(digits) > maxDigits {
		return 0, &SyntaxError{Text: shown(digits)}
	}
	var v Version
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return 0, &SyntaxError{Text: shown(digits)}
		}
		v = v*10 + Version(c-'0')
	}
	return v, nil
}

// ASCII's, and nothing of Unicode's: a no-break space is a mistake that should be seen.
const asciiSpace = " \t\r\n\v\f"

func shown(text string) string {
	limit := shownBytes
	switch {
	case strings.Trim(text, "0123456789+-.eE_ ") == "":
	case text[0] >= '0' && text[0] <= '9':
		limit = shownFirst
	case len(text) >= 2*shownBytes: // [Line] hands over no more
		return fmt.Sprintf("%d bytes or more that are not a number", 2*shownBytes)
	case len(text) == 1:
		return "a byte that is not a number"
	default:
		return strconv.Itoa(len(text)) + " bytes that are not a number"
	}
	if len(text) <= limit {
		return strconv.QuoteToASCII(text)
	}
	cut := limit
	for cut > 1 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return strconv.QuoteToASCII(text[:cut]) + "…"
}

// Source is a place where a version can be seen.
type Source interface {
	// Read looks once. It returns an error that is [ErrAbsent] while there is no version yet, and one that is not where waiting
	// does not help.
	Read(ctx context.Context) (Version, error)
	// String names the place in messages.
	String() string
}

// Paths is what a [Source] in files has besides: the files whose change may change the version. They need not exist.
type Paths interface {
	Paths() []string
}
