package pgb

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func anyMark(t *rapid.T) Mark {
	return Mark{
		Original: time.Duration(rapid.IntRange(0, 999).Draw(t, "tenths")) * 100 * time.Millisecond,
		Nonce:    rapid.IntRange(0, 9).Draw(t, "nonce"),
		Owner:    rapid.SampledFrom([]Owner{Guard, Hand, Foreign, Readers}).Draw(t, "owner"),
	}
}

// shown is what SHOW CONFIG makes of a value that was SET: microseconds, the rest cut off (or rounded, should a later
// version do that), with six significant digits. TestMarkOnRealConfig shows that the real ones do.
func shown(t *rapid.T, value string, round bool) string {
	seconds, err := strconv.ParseFloat(value, 64)
	if err != nil {
		t.Fatal(err)
	}
	us := seconds * 1e6
	if round {
		us += 0.5
	}
	return fmt.Sprintf("%.6g", float64(int64(us))/1e6)
}

func TestMarkSurvivesTheRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := anyMark(t)
		if !CanCarry(m.Original) {
			t.Fatalf("%v cannot be carried", m.Original)
		}
		for _, round := range []bool{false, true} {
			if got, ok := parseMark(shown(t, m.value(), round)); !ok || got != m {
				t.Fatalf("%+v → %s → %s → %+v %v", m, m.value(), shown(t, m.value(), round), got, ok)
			}
		}
	})
}

func TestOrdinaryValuesAreNoMarks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Multiples of 10 µs up to 200 s, in the spellings that SHOW CONFIG or a person may use.
		us := rapid.Int64Range(0, 20_000_000).Draw(t, "tens") * 10
		seconds := float64(us) / 1e6
		for _, value := range []string{
			fmt.Sprintf("%.6g", seconds), fmt.Sprintf("%.6f", seconds), strconv.FormatFloat(seconds, 'f', -1, 64),
			strconv.FormatFloat(seconds, 'e', -1, 64),
		} {
			if m, ok := parseMark(value); ok {
				t.Fatalf("%s is taken for %+v", value, m)
			}
		}
	})
	for _, value := range []string{"", "x", "NaN", "Inf", "-Inf", "-0.015043", "0", "15", "0.1", "0.015041", "0.0150435", "1.015043",
		"1e-300", "1e300"} {
		if m, ok := parseMark(value); ok {
			t.Errorf("%q is taken for %+v", value, m)
		}
	}
}

func TestParseMarkTakesAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		if m, ok := parseMark(rapid.String().Draw(t, "value")); ok && !CanCarry(m.Original) {
			t.Fatalf("%+v", m)
		}
	})
}

func TestCanCarry(t *testing.T) {
	for original, want := range map[time.Duration]bool{
		0: true, 100 * time.Millisecond: true, 15 * time.Second: true, 99900 * time.Millisecond: true,
		250 * time.Millisecond: false, 100 * time.Second: false, -time.Second: false, time.Millisecond: false, 15*time.Second + 1: false,
	} {
		if got := CanCarry(original); got != want {
			t.Errorf("CanCarry(%v) = %v", original, got)
		}
	}
}

func TestSecondsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, 999).Draw(t, "tenths")) * 100 * time.Millisecond
		if got, err := parseSeconds(formatSeconds(d)); err != nil || got != d {
			t.Fatalf("%v → %s → %v %v", d, formatSeconds(d), got, err)
		}
	})
	for _, value := range []string{"", "soon", "NaN", "-1", "Inf", "1e12"} {
		if d, err := parseSeconds(value); err == nil {
			t.Errorf("%q is taken for %v", value, d)
		}
	}
}

func TestOwnerNames(t *testing.T) {
	for owner, want := range map[Owner]string{Guard: "guard", Hand: "hand", Foreign: "foreign", 0: "unknown"} {
		if owner.String() != want {
			t.Errorf("%d is called %s", int(owner), owner)
		}
	}
}
