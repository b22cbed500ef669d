package config

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/pgbaton/pgbaton/file"
)

// ownedAbove says which directory on the way to dir belongs to a user who is neither we nor root: whoever owns it can put another
// directory in the place of dir at any time. (A directory of root's in which everybody may write, as a volume of Kubernetes is, is left
// to root.)
func ownedAbove(dir string) error {
	checked := map[string]bool{}
	for _, hop := range file.Walk("", filepath.Dir(dir)) {
		for above := hop.Dir; !checked[above]; above = filepath.Dir(above) {
			checked[above] = true
			if err := ownedByUs(above); err != nil {
				return err
			}
		}
		if err := ownedByUs(hop.Path()); err != nil {
			return err
		}
	}
	return nil
}

func ownedByUs(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 && int(owner) != os.Geteuid() {
		return fmt.Errorf("is below %s, which belongs to uid %d, who can replace it: name a directory below root's or our own", path, owner)
	}
	return nil
}
