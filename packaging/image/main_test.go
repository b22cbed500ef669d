package main

import (
	"archive/tar"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// TestImage unpacks the image of make packages and runs it, as the user that it names, with nothing of this machine in reach.
func TestImage(t *testing.T) {
	found, err := filepath.Glob("../../dist/packages/*.oci.tar")
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %d images: run make packages", err, len(found))
	}
	dir := t.TempDir()
	if out, err := exec.Command("tar", "-xf", found[0], "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	top, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := top.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("%v, %d entries", err, len(manifest.Manifests))
	}
	index, err := top.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	images, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var architectures []string
	for _, entry := range images.Manifests {
		architectures = append(architectures, entry.Platform.String())
		image, err := index.Image(entry.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if config.Architecture != entry.Platform.Architecture || config.Config.User != user ||
			config.Config.Labels["org.opencontainers.image.revision"] == "" || config.Config.Labels["org.opencontainers.image.version"] == "" {
			t.Errorf("%s: %+v", entry.Platform, config)
		}
		if entry.Platform.Architecture == runtime.GOARCH {
			runImage(t, image, config.Config.Labels["org.opencontainers.image.version"])
		}
	}
	if got := strings.Join(architectures, " "); got != "linux/amd64 linux/arm64" {
		t.Errorf("it is for %s", got)
	}
}

func runImage(t *testing.T, image v1.Image, version string) {
	t.Helper()
	root := t.TempDir()
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil {
		t.Fatal(err)
	}
	reader := mutate.Extract(image)
	defer reader.Close()
	files := 0
	for archive := tar.NewReader(reader); ; files++ {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(root, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, path)
		default:
			var file *os.File
			if file, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY, h.FileInfo().Mode()); err == nil {
				_, err = io.Copy(file, archive)
				_ = file.Close()
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if files != 9 {
		t.Errorf("%d files", files)
	}
	for _, line := range [][]string{{"/usr/bin/pgbaton", "version"}, {"/usr/lib/pgbaton/before_stop", "--help"}} {
		cmd := exec.Command("unshare", append([]string{"--mount", "--net", "--pid", "--fork", "chroot", "--userspec=" + user, root}, line...)...)
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
		out, err := cmd.CombinedOutput()
		if want := map[string]string{"version": "pgbaton " + version + " ", "--help": "Usage: pgbaton before_stop"}[line[1]]; err != nil ||
			!strings.Contains(string(out), want) {
			t.Errorf("%q: %v\n%s", line, err, out)
		}
	}
}

// TestReproducible: the digest depends on the binaries, the version and the commit, and on nothing of the time or the machine.
func TestReproducible(t *testing.T) {
	digestOf := func(text, version string, when time.Time) string {
		dir := t.TempDir()
		binary := filepath.Join(dir, "pgbaton")
		if err := os.WriteFile(binary, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(binary, when, when); err != nil {
			t.Fatal(err)
		}
		digest, err := write(filepath.Join(dir, "image"), version, "abc", time.Unix(1700000000, 0).UTC(), []string{"amd64=" + binary, "arm64=" + binary})
		if err != nil {
			t.Fatal(err)
		}
		return digest
	}
	first := digestOf("program", "v1", time.Now())
	if again := digestOf("program", "v1", time.Unix(1, 0)); again != first {
		t.Errorf("%s, and again %s", first, again)
	}
	if other := digestOf("another", "v1", time.Now()); other == first {
		t.Error("another program has the same digest")
	}
	if other := digestOf("program", "v2", time.Now()); other == first {
		t.Error("another version has the same digest")
	}
}
