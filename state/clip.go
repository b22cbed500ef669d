package state

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clip makes a text of others fit to be kept and shown: at most limit bytes and "...", no half of a letter, and a blank for what is no
// letter at all and for control characters except the ends of lines and tabs.
func Clip(text string, limit int) string {
	cut := len(text) > limit
	if cut {
		end := limit
		for end > 0 && !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end]
	}
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) && r != '\n' && r != '\t' {
			return ' '
		}
		return r
	}, text)
	if cut {
		text += "..."
	}
	return text
}
