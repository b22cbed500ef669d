package configversion

import (
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		text string
		want Version
		err  string
	}{
		{"42", 42, ""},
		{" 42\r\n", 42, ""},
		{"0", 0, ""},
		{"007", 7, ""},
		{"000000000000000000", 0, ""},
		{"999999999999999999", 999999999999999999, ""},
		{"1000000000000000000", 0, `"1000000000000000000" is not a configuration version (a whole number, at most 18 digits)`},
		{"12345678901234567890", 0, "not a configuration version"},
		{"", 0, `"" is not`},
		{" \n", 0, `"" is not`},
		{"-1", 0, `"-1" is not`},
		{"+1", 0, `"+1" is not`},
		{"0x2a", 0, `"0x2a" is not`},
		{"1e3", 0, `"1e3" is not`},
		{"4.0", 0, "is not"},
		{"4_2", 0, "is not"},
		{"4 2", 0, "is not"},
		{"42\n43", 0, `"42\n4"… is not`},
		{"42\x00", 0, `"42\x00" is not`},
		{"٤٢", 0, "4 bytes that are not a number is not"},
		{"\u00a042", 0, "4 bytes that are not a number is not"},
		{"v42", 0, "3 bytes that are not a number is not a configuration version"},
		{"x", 0, "a byte that is not a number is"},
		// What a file of secrets may have.
		{"hunter2", 0, "7 bytes that are not a number is"},
		{"4ever-secret", 0, `"4eve"… is`},
		{"123üx", 0, `"123"… is`},
		{strings.Repeat("1.", 9999), 0, `"` + strings.Repeat("1.", 12) + `"… is`},
		{strings.Repeat("x", 9999), 0, "48 bytes or more that are not a number is"},
	} {
		got, err := Parse(c.text)
		if got != c.want || !saysError(err, c.err) {
			t.Errorf("Parse(%.40q) = %d, %v; want %d, %q", c.text, got, err, c.want, c.err)
		}
		if _, ok := errors.AsType[*SyntaxError](err); err != nil && !ok {
			t.Errorf("Parse(%.40q): %T", c.text, err)
		}
	}
}

func saysError(err error, want string) bool {
	if want == "" || err == nil {
		return want == "" && err == nil
	}
	return strings.Contains(err.Error(), want)
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"42", "-1", "0x1", strings.Repeat("9", 20), "\xff\xfe", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := Parse(text)
		if err != nil {
			if len(err.Error()) > 350 || strings.ContainsAny(err.Error(), "\n\r\x00\x1b") {
				t.Fatalf("%q", err.Error())
			}
			return
		}
		if again, err := Parse(v.String()); err != nil || again != v {
			t.Fatalf("%q is %d, and that is %d, %v", text, v, again, err)
		}
	})
}

func FuzzLine(f *testing.F) {
	for _, s := range []string{
		"; config-version: 42\n", "# config-version: 42", "#config-version:\n", "a\r\n;config-version: 1\r\n;config-version: 1",
		"; config-version: 1\n; config-version: 2\n", "\xef\xbb\xbf; config-version: 3", "; config-version: " + strings.Repeat(" ",
			70<<10) + "4\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := scan("f", strings.NewReader(text))
		_, syntax := errors.AsType[*SyntaxError](err)
		switch {
		case err == nil:
			if !strings.Contains(text, strings.TrimLeft(v.String(), "0")) {
				t.Fatalf("%q has no %d", text, v)
			}
			// Whatever a writer has written so far says no more than the whole.
			for cut := range min(len(text), 300) {
				part, err := scan("f", strings.NewReader(text[:cut]))
				if part > v || err != nil && !errors.Is(err, ErrAbsent) {
					t.Fatalf("%q says %d, its first %d bytes %d, %v", text, v, cut, part, err)
				}
			}
		case !syntax && !errors.Is(err, ErrAbsent) && !errors.Is(err, ErrConflict):
			t.Fatal(err)
		case len(err.Error()) > 350:
			t.Fatal(len(err.Error()))
		}
	})
}
