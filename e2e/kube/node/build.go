package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
)

// build returns the path of kubebox. It is built once for each state of its sources, which takes minutes, and kept in the user's cache folder.
func build(ctx context.Context) (string, error) {
	source, err := sources()
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(source, "*"))
	if err != nil {
		return "", err
	}
	slices.Sort(files)
	sum := sha256.New()
	var version string
	for _, path := range files {
		content, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		sum.Write(content)
		if m := pinned.FindSubmatch(content); m != nil && filepath.Base(path) == "go.mod" {
			version = string(m[1])
		}
	}
	if version == "" {
		return "", errors.New("go.mod does not say which Kubernetes")
	}
	built := filepath.Join(cache, "pgbaton", "kubebox-"+version+"-"+hex.EncodeToString(sum.Sum(nil))[:16])
	if _, err := os.Stat(built); err == nil {
		return built, nil
	}
	if err := os.MkdirAll(filepath.Dir(built), 0o755); err != nil {
		return "", err
	}
	const component = "-X k8s.io/component-base/version."
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", built+".new", "-ldflags",
		"-s -w "+component+"gitVersion="+version+" "+component+"gitMajor=1 "+component+"gitMinor="+minor.FindStringSubmatch(version)[1], ".")
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := run(cmd, ""); err != nil {
		return "", err
	}
	return built, os.Rename(built+".new", built)
}

var (
	pinned = regexp.MustCompile(`(?m)^require k8s\.io/kubernetes (v\S+)$`)
	minor  = regexp.MustCompile(`^v1\.(\d+)\.`)
)

// sources is the folder e2e/kube/box of the checkout that the working directory is in.
func sources() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		box := filepath.Join(dir, "e2e", "kube", "box")
		if _, err := os.Stat(filepath.Join(box, "go.mod")); err == nil {
			return box, nil
		}
		if dir == "/" {
			return "", errors.New("e2e/kube/box is below no folder above the working directory")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}
