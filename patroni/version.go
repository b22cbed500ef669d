package patroni

import (
	"strconv"
	"strings"
)

// OlderThan compares a version of Patroni such as "3.0.2" or "4.1.0rc1"; one that is not understood is not older.
func OlderThan(version string, than ...int) bool {
	parts := strings.SplitN(version, ".", len(than))
	if len(parts) < len(than) {
		return false
	}
	for i, want := range than {
		digits := strings.TrimLeft(parts[i], "0123456789")
		n, err := strconv.Atoi(parts[i][:len(parts[i])-len(digits)])
		if err != nil || n > want {
			return false
		}
		if n < want {
			return true
		}
	}
	return false
}
