package node

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// pauseImage is what the sandbox of each pod runs: kubebox is too large for it, and Kubernetes' own image is in no registry of ours.
const pauseImage = "docker.io/library/pause:1"

// Image is one image: layers of files, the later over the earlier.
type Image struct {
	Layers     []Layer
	Entrypoint []string
	User       string
}

// Layer is a tar file of one layer, not compressed.
type Layer string

// Import gives the node images, by name and tag. It blocks for about 10 s for a whole system.
func (n *Node) Import(ctx context.Context, images map[string]Image) error {
	layers := map[Layer]v1.Layer{}
	all := map[name.Tag]v1.Image{}
	for _, tag := range slices.Sorted(maps.Keys(images)) {
		reference, err := name.NewTag(tag)
		if err != nil {
			return err
		}
		image := mutate.MediaType(empty.Image, types.DockerManifestSchema2)
		for _, layer := range images[tag].Layers {
			if layers[layer] == nil {
				content, err := os.ReadFile(string(layer))
				if err != nil {
					return err
				}
				layers[layer] = static.NewLayer(content, types.DockerUncompressedLayer)
			}
			if image, err = mutate.AppendLayers(image, layers[layer]); err != nil {
				return fmt.Errorf("%s: %w", tag, err)
			}
		}
		config, err := image.ConfigFile()
		if err != nil {
			return err
		}
		config = config.DeepCopy()
		config.OS, config.Architecture = "linux", runtime.GOARCH // without them it is for no machine
		config.Config = v1.Config{Entrypoint: images[tag].Entrypoint, User: images[tag].User,
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}}
		if all[reference], err = mutate.ConfigFile(image, config); err != nil {
			return err
		}
	}
	path := filepath.Join(n.dir, "images.tar")
	defer os.Remove(path)
	if err := tarball.MultiWriteToFile(path, all); err != nil {
		return err
	}
	_, err := n.Exec(ctx, "", "ctr", "--address", "/run/containerd.sock", "--namespace", "k8s.io", "images", "import", path)
	return err
}

// Tar makes a layer of a folder's files, in a file of the node's folder. Arguments are tar's, such as --exclude.
func (n *Node) Tar(ctx context.Context, as, folder string, args ...string) (Layer, error) {
	path := filepath.Join(n.dir, as+".tar")
	args = append([]string{"--create", "--file", path, "--directory", folder, "--numeric-owner", "--one-file-system"}, args...)
	_, err := run(exec.CommandContext(ctx, "tar", append(args, ".")...), "")
	return Layer(path), err
}

// ImportArchive gives the node an image from a file (an OCI layout in a tar file), under a repository's name; its tag is in the file.
func (n *Node) ImportArchive(ctx context.Context, path, repository string) error {
	_, err := n.Exec(ctx, "", "ctr", "--address", "/run/containerd.sock", "--namespace", "k8s.io", "images", "import", "--base-name", repository, path)
	return err
}
