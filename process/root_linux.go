package process

import (
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// OpenIn opens a path as a process whose root is the directory fd would.
func OpenIn(fd int, path string, flags int) (int, error) {
	for {
		got, err := unix.Openat2(fd, path, &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT})
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN): // EAGAIN: something was renamed meanwhile
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
			// Before Linux 5.6, or a container run-time that forbids what it does not know: links are followed in our root then.
			return unix.Open(fmt.Sprintf("/proc/self/fd/%d/%s", fd, path), flags|unix.O_CLOEXEC, 0)
		default:
			return got, err
		}
	}
}

var procRoot = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(/proc/[0-9]+)/root/*$`) })

// WorkingDirectory is that of the process whose root "/proc/PID/root" is, inside of it.
func WorkingDirectory(root string) (string, bool) {
	m := procRoot().FindStringSubmatch(root)
	if m == nil {
		return "", false
	}
	top, err := os.Readlink(m[1] + "/root")
	if err != nil {
		return "", false
	}
	cwd, err := os.Readlink(m[1] + "/cwd")
	if err != nil || !path.IsAbs(cwd) {
		return "", false
	}
	// Both links are told as seen from here when the two share our file systems (a chroot), and as seen from there when not.
	if top == "/" {
		return cwd, true
	}
	if inside, ok := strings.CutPrefix(cwd+"/", strings.TrimSuffix(top, "/")+"/"); ok {
		return path.Join("/", inside), true
	}
	return cwd, true
}
