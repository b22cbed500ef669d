// Command image writes the OCI image of pgbaton: for amd64 and arm64, with nothing in it but the binary and its links, and without a container
// engine. The same binaries and the same commit give the same digest.
//
//	go run ./image -version V -revision COMMIT -created UNIX -out DIR ARCH=BINARY...
//
// DIR becomes an OCI image layout (index.json, blobs), which every tool for images can copy to a registry.
package main

import (
	"archive/tar"
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// user is nobody in particular: neither root nor a user of Debian's. Where pgbaton runs as a hook it is Patroni's user anyway.
const user = "65532:65532"

func main() {
	version := flag.String("version", "devel", "version, for the labels")
	revision := flag.String("revision", "", "commit, for the labels")
	created := flag.Int64("created", 0, "time of everything in the image, seconds since 1970")
	out := flag.String("out", "", "directory for the OCI layout")
	flag.Parse()
	digest, err := write(*out, *version, *revision, time.Unix(*created, 0).UTC(), flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
	fmt.Println(digest)
}

// write makes the layout and returns the digest of its index.
func write(dir, version, revision string, created time.Time, binaries []string) (string, error) {
	labels := map[string]string{
		"org.opencontainers.image.title":       "pgbaton",
		"org.opencontainers.image.description": "Planned maintenance of Patroni clusters behind PgBouncer, without an error for any client",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.version":     version,
		"org.opencontainers.image.revision":    revision,
		"org.opencontainers.image.created":     created.Format(time.RFC3339),
	}
	var index v1.ImageIndex = mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, pair := range binaries {
		arch, path, ok := strings.Cut(pair, "=")
		if !ok {
			return "", fmt.Errorf("%q is not ARCH=BINARY", pair)
		}
		image, err := imageOf(path, arch, labels, created)
		if err != nil {
			return "", err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	index = mutate.Annotations(index, labels).(v1.ImageIndex)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return "", err
	}
	if err := path.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": version})); err != nil {
		return "", err
	}
	digest, err := index.Digest()
	return digest.String(), err
}

func imageOf(binary, arch string, labels map[string]string, created time.Time) (v1.Image, error) {
	text, err := files(binary, created)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil },
		tarball.WithMediaType(types.OCILayer),
	)
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: created}, CreatedBy: "packaging/image"},
	})
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", arch, v1.Time{Time: created}
	config.Config = v1.Config{
		User:       user,
		Entrypoint: []string{"/usr/bin/pgbaton"},
		Cmd:        []string{"--help"},
		Env:        []string{"PATH=/usr/bin"},
		WorkingDir: "/",
		Labels:     labels,
	}
	return mutate.ConfigFile(image, config)
}

// files is the image's one layer. pgbaton starts itself and nothing else, so there is no shell and no library.
func files(binary string, created time.Time) ([]byte, error) {
	program, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(h tar.Header, text []byte) error {
		h.ModTime, h.Size, h.Format = created, int64(len(text)), tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
		_, err := w.Write(text)
		return err
	}
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "usr/", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "usr/bin/", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "usr/lib/", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "usr/lib/pgbaton/", Mode: 0o755},
		// As in /tmp: every user makes a folder of its own there.
		{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777},
		{Typeflag: tar.TypeSymlink, Name: "usr/lib/pgbaton/before_stop", Linkname: "../../bin/pgbaton", Mode: 0o777},
		{Typeflag: tar.TypeSymlink, Name: "usr/lib/pgbaton/on_role_change", Linkname: "../../bin/pgbaton", Mode: 0o777},
		{Typeflag: tar.TypeSymlink, Name: "usr/lib/pgbaton/reload", Linkname: "../../bin/pgbaton", Mode: 0o777},
	} {
		if err := add(h, nil); err != nil {
			return nil, err
		}
	}
	if err := add(tar.Header{Typeflag: tar.TypeReg, Name: "usr/bin/pgbaton", Mode: 0o755}, program); err != nil {
		return nil, err
	}
	return out.Bytes(), w.Close()
}
