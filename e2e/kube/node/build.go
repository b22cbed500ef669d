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

// build returns the path of kubebox, which it builds where it is not built. That takes minutes.
func build(ctx context.Context) (string, error) {
	source, err := sources("box")
	if err != nil {
		return "", err
	}
	modules, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return "", err
	}
	m := pinned.FindSubmatch(modules)
	if m == nil {
		return "", errors.New("go.mod does not say which Kubernetes")
	}
	version := string(m[1])
	const component = "-X k8s.io/component-base/version."
	return buildOnce(ctx, source, "kubebox-"+version, component+"gitVersion="+version+" "+component+"gitMajor=1 "+
		component+"gitMinor="+minor.FindStringSubmatch(version)[1])
}

// buildNetpol is build for what enforces NetworkPolicies.
func buildNetpol(ctx context.Context) (string, error) {
	source, err := sources("netpol")
	if err != nil {
		return "", err
	}
	return buildOnce(ctx, source, "netpol", "")
}

// buildOnce builds a program once for each state of its sources, and keeps it in the user's cache folder.
func buildOnce(ctx context.Context, source, name, ldflags string) (string, error) {
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
	for _, path := range files {
		content, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		sum.Write(content)
	}
	built := filepath.Join(cache, "pgbaton", name+"-"+hex.EncodeToString(sum.Sum(nil))[:16])
	if _, err := os.Stat(built); err == nil {
		return built, nil
	}
	if err := os.MkdirAll(filepath.Dir(built), 0o755); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", built+".new", "-ldflags", "-s -w "+ldflags, ".")
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

// sources is a folder below e2e/kube of the checkout that the working directory is in.
func sources(name string) (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		source := filepath.Join(dir, "e2e", "kube", name)
		if _, err := os.Stat(filepath.Join(source, "go.mod")); err == nil {
			return source, nil
		}
		if dir == "/" {
			return "", errors.New("e2e/kube/" + name + " is below no folder above the working directory")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}
