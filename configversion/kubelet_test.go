package configversion

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// kubelet writes a volume as one does. It returns when ..data was moved.
type kubelet func(volume string, payload map[string]string) (swapped time.Time, err error)

// kubeletWrite does to a volume what the kubelet's AtomicWriter.Write does, step by step and with its modes (source:
// pkg/volume/util/atomic_writer.go of Kubernetes), in the form that makes what users see after the swap.
func kubeletWrite(volume string, payload map[string]string) (swapped time.Time, err error) {
	return atomicWrite(volume, payload, false)
}

// olderKubeletWrite makes the links that users see before the swap; for a moment those of the first payload lead nowhere.
func olderKubeletWrite(volume string, payload map[string]string) (swapped time.Time, err error) {
	return atomicWrite(volume, payload, true)
}

func atomicWrite(volume string, payload map[string]string, visibleFirst bool) (swapped time.Time, err error) {
	data := filepath.Join(volume, "..data")
	old, err := os.Readlink(data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return swapped, err
	}
	var stale []string // what users see and the new payload has not
	if old != "" {
		same := true
		err := filepath.WalkDir(filepath.Join(volume, old), func(path string, _ fs.DirEntry, err error) error {
			rel := strings.TrimPrefix(strings.TrimPrefix(path, filepath.Join(volume, old)), "/")
			if rel != "" && !inPayload(payload, rel) {
				stale = append(stale, rel)
			}
			return err
		})
		if err != nil {
			return swapped, err
		}
		for name, content := range payload {
			was, err := os.ReadFile(filepath.Join(volume, old, name))
			same = same && err == nil && string(was) == content
		}
		if same && len(stale) == 0 {
			return swapped, errors.New("the test changes nothing")
		}
	}
	stamped, err := os.MkdirTemp(volume, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return swapped, err
	}
	if err := os.Chmod(stamped, 0o755); err != nil {
		return swapped, err
	}
	for name, content := range payload {
		path := filepath.Join(stamped, name)
		if err := errors.Join(
			os.MkdirAll(filepath.Dir(path), os.ModePerm),
			os.WriteFile(path, []byte(content), 0o644),
			os.Chmod(path, 0o644),
		); err != nil {
			return swapped, err
		}
	}
	if visibleFirst {
		if err := makeVisible(volume, payload); err != nil {
			return swapped, err
		}
	}
	if err := os.Symlink(filepath.Base(stamped), filepath.Join(volume, "..data_tmp")); err != nil {
		return swapped, err
	}
	swapped = time.Now()
	if err := os.Rename(filepath.Join(volume, "..data_tmp"), data); err != nil {
		return swapped, err
	}
	if !visibleFirst {
		if err := makeVisible(volume, payload); err != nil {
			return swapped, err
		}
	}
	for _, name := range stale {
		if !strings.Contains(name, "/") {
			if err := os.Remove(filepath.Join(volume, name)); err != nil {
				return swapped, err
			}
		}
	}
	if old != "" {
		return swapped, os.RemoveAll(filepath.Join(volume, old))
	}
	return swapped, nil
}

// makeVisible makes the links that users see, where they are missing.
func makeVisible(volume string, payload map[string]string) error {
	for name := range payload {
		top, _, _ := strings.Cut(name, "/")
		if _, err := os.Readlink(filepath.Join(volume, top)); errors.Is(err, fs.ErrNotExist) {
			if err := os.Symlink(filepath.Join("..data", top), filepath.Join(volume, top)); err != nil {
				return err
			}
		}
	}
	return nil
}

func inPayload(payload map[string]string, rel string) bool {
	for name := range payload {
		if name == rel || strings.HasPrefix(name, rel+"/") {
			return true
		}
	}
	return false
}

// The stand-ins leave behind what a kubelet leaves.
func TestKubeletWrite(t *testing.T) {
	for name, write := range kubelets {
		t.Run(name, func(t *testing.T) { leavesBehind(t, write) })
	}
}

var kubelets = map[string]kubelet{"newer": kubeletWrite, "older": olderKubeletWrite}

func leavesBehind(t *testing.T, write kubelet) {
	volume := t.TempDir()
	for _, payload := range []map[string]string{
		{"version": "1", "gone": "x", "deep/er/file": "y"},
		{"version": "2", "deep/er/file": "y"},
	} {
		if _, err := write(volume, payload); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(volume)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if len(names) != 4 || !strings.HasPrefix(names[0], "..2") || names[1] != "..data" || names[2] != "deep" || names[3] != "version" {
		t.Fatal(names)
	}
	for link, want := range map[string]string{"..data": names[0], "deep": "..data/deep", "version": "..data/version"} {
		if target, err := os.Readlink(filepath.Join(volume, link)); err != nil || target != want {
			t.Errorf("%s: %s, %v", link, target, err)
		}
	}
	if info, err := os.Stat(filepath.Join(volume, names[0])); err != nil || info.Mode().Perm() != 0o755 {
		t.Error(info.Mode(), err)
	}
}

// renameExchange swaps two directories in one step, as a mount over the old one would look.
func renameExchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}
