package file

import (
	"fmt"
	"io/fs"
	"syscall"
)

// Permissions says who besides its owner, root and us may write a file, or read one that holds a secret, as a problem with what to do: ""
// is nobody. The group may read it: so does a Kubernetes secret under fsGroup. What its folders allow is not looked at.
func Permissions(info fs.FileInfo, secret bool) string {
	mode := info.Mode().Perm()
	at := fmt.Sprintf("mode %04o", mode)
	owner := -1
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = int(sys.Uid)
	}
	switch {
	case owner > 0 && owner != syscall.Geteuid():
		return fmt.Sprintf("belongs to uid %d, who can change it, and we are uid %d: chown it", owner, syscall.Geteuid())
	case mode&0o002 != 0:
		return "everybody can write it (" + at + "): chmod go-w"
	case mode&0o020 != 0:
		return "its group can write it (" + at + "): chmod g-w"
	case secret && mode&0o004 != 0:
		return "everybody can read it (" + at + "): chmod o-r"
	}
	return ""
}
