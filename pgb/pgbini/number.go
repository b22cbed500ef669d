package pgbini

import (
	"math"
	"strconv"
	"strings"
)

// strtol is C's with base 0: "0x10", "010"; "0b11" is one with a C library of 2023 and later only, and where it was not
// taken, the running value shows it. What is too large is the largest.
func strtol(s string) (int64, bool) {
	s = strings.TrimLeftFunc(s, func(c rune) bool { return c < 0x80 && isspace(byte(c)) })
	digits := strings.TrimLeft(s, "+-")
	if len(s)-len(digits) > 1 || strings.ContainsAny(s, "_oO") {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil && (n == math.MaxInt64 || n == math.MinInt64) {
		return n, true
	}
	return n, err == nil
}

// atoi is C's: what is no number at its beginning is 0.
func atoi(s string) int32 {
	s = strings.TrimLeftFunc(s, func(c rune) bool { return c < 0x80 && isspace(byte(c)) })
	end := 0
	if end < len(s) && (s[end] == '+' || s[end] == '-') {
		end++
	}
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	n, _ := strconv.ParseInt(s[:end], 10, 64) // 0, or the largest
	return int32(n)
}

// strtonum is OpenBSD's, for ids of peers.
func strtonum(s string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimLeftFunc(s, func(c rune) bool { return c < 0x80 && isspace(byte(c)) }), 10, 64)
	return n, err == nil
}

// seconds is a time as PgBouncer keeps it: whole microseconds.
func seconds(s string) (float64, bool) {
	s = strings.TrimLeftFunc(s, func(c rune) bool { return c < 0x80 && isspace(byte(c)) })
	if strings.Contains(s, "_") {
		return 0, false
	}
	lower := strings.ToLower(strings.TrimLeft(s, "+"))
	if strings.HasPrefix(lower, "0x") && !strings.Contains(lower, "p") {
		s += "p0" // Go wants the exponent, C does not
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || v < 0 || v == 0 && strings.ContainsAny(mantissa(lower), "123456789") {
		return 0, false // also what is too large or too small: PgBouncer refuses both
	}
	if math.IsNaN(v) || v > 9e12 {
		return v, true // PgBouncer makes something else of it, which the comparison then shows
	}
	return math.Trunc(v*1e6) / 1e6, true
}

func mantissa(s string) string {
	if i := strings.IndexAny(s, "ep"); i >= 0 && !strings.HasPrefix(s, "0x") {
		return s[:i]
	}
	return s
}

// formatG is C's %g.
func formatG(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

// isspace is C's, in the locale "C".
func isspace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
