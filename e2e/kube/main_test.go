// Package kube_test tries the manifests on a real Kubernetes of one node: see node. It needs root, takes minutes, and is no part of make test,
// because building that Kubernetes takes longer than all other tests: make kube runs it.
package kube_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/kube/node"
	"github.com/pgbaton/pgbaton/e2e/labroot"
)

var full = flag.Bool("full", false, "every event as often as the table in docs/kubernetes.md says")

// rounds is how often an event is tried.
func rounds(short, long int) int {
	if *full {
		return long
	}
	return short
}

// cluster is the one that all tests use, one after the other.
var cluster *kube

func TestMain(m *testing.M) {
	node.First()
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Getuid() != 0 {
		fmt.Println("skipped: needs root")
		return 0
	}
	dir, err := os.MkdirTemp("/var/lib", "pgbaton-kube-")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	n, err := node.Start(ctx, dir)
	if err != nil {
		fmt.Println("the node does not start:", err)
		return 1
	}
	fmt.Printf("the node is Ready after %.1f s\n", time.Since(began).Seconds())
	cluster = &kube{Node: n, made: dir}
	code := 1
	if err = cluster.setUp(ctx); err == nil {
		fmt.Printf("the cluster is whole after %.1f s\n", time.Since(began).Seconds())
		code = m.Run()
	} else {
		fmt.Println("the cluster is not set up:", err)
		cluster.save(os.TempDir())
	}
	began = time.Now()
	if err := n.Close(); err != nil {
		fmt.Println("the node is not gone:", err)
		return 1
	}
	fmt.Printf("the node is gone after %.1f s\n", time.Since(began).Seconds())
	return code
}

// checkout is the folder of the repository.
func checkout() (string, error) {
	dir, err := os.Getwd()
	return filepath.Join(dir, "..", ".."), err
}

// setUp does what manifests/README.md says, with images of the lab's trixie and of pgbaton's packages.
func (k *kube) setUp(ctx context.Context) error {
	repository, err := checkout()
	if err != nil {
		return err
	}
	if err := k.images(ctx, repository); err != nil {
		return fmt.Errorf("images: %w", err)
	}
	k.manifests = filepath.Join(k.made, "manifests")
	if err := os.CopyFS(k.manifests, os.DirFS(filepath.Join(repository, "manifests"))); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "sh", filepath.Join(k.manifests, "credentials", "generate.sh")).CombinedOutput(); err != nil {
		return fmt.Errorf("generate.sh: %w: %s", err, out)
	}
	own := filepath.Join(k.made, "own")
	if err := os.Mkdir(own, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(own, "kustomization.yaml"), []byte(k.ownKustomization()), 0o644); err != nil {
		return err
	}
	// Pods that Pod Security restricted does not let in are not made.
	if _, err := k.Kubectl(ctx, "", "label", "namespace", "default", "pod-security.kubernetes.io/enforce=restricted"); err != nil {
		return err
	}
	if _, err := k.Kubectl(ctx, "", "apply", "-k", own); err != nil {
		return err
	}
	if err := k.whole(ctx); err != nil {
		return err
	}
	_, err = k.Kubectl(ctx, "", "rollout", "status", "deployment/pgbouncer", "--timeout=120s")
	return err
}

// ownKustomization is what somebody writes who has images of their own.
func (k *kube) ownKustomization() string {
	return `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
- ../manifests/base
images:
- {name: pgbaton, newName: pgbaton, newTag: "` + k.version + `"}
- {name: patroni, newName: debian, newTag: trixie}
- {name: pgbouncer, newName: debian, newTag: trixie}
patches: # two cores for everything: what the members ask for would leave no room for one pooler more
- target: {kind: StatefulSet, name: cluster}
  patch: |
    - {op: replace, path: /spec/template/spec/containers/0/resources/requests/cpu, value: 100m}
`
}

// images makes three: Debian with PostgreSQL, Patroni and PgBouncer, as the lab's servers run in; pgbaton's own, of the packages; and the
// probe's.
func (k *kube) images(ctx context.Context, repository string) error {
	root, err := labroot.Of(ctx, "trixie")
	if err != nil {
		return err
	}
	var leftOut []string
	for _, path := range []string{"./proc/*", "./sys/*", "./dev/*", "./tmp/*", "./run/*", "./lab", "./callbacks", "./usr/share/doc", "./usr/share/man",
		"./usr/share/locale", "./var/cache", "./var/lib/apt/lists", "./usr/lib/x86_64-linux-gnu/libLLVM*", "./usr/lib/postgresql/*/lib/bitcode"} {
		leftOut = append(leftOut, "--exclude="+path)
	}
	system, err := k.Tar(ctx, "system", root, leftOut...)
	if err != nil {
		return err
	}
	// As in the images of postgres that most people have, and in base/statefulset.yaml.
	ids, err := k.postgresIs999(ctx, root)
	if err != nil {
		return err
	}
	programs := filepath.Join(k.made, "programs")
	for _, what := range []string{"./probe", "./pause"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(programs, what, what), what)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", what, err, out)
		}
	}
	probe, err1 := k.Tar(ctx, "probe", filepath.Join(programs, "probe"), "--owner=0", "--group=0")
	pause, err2 := k.Tar(ctx, "pause", filepath.Join(programs, "pause"), "--owner=0", "--group=0")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	err = k.Import(ctx, map[string]node.Image{
		"docker.io/library/debian:trixie": {Layers: []node.Layer{system, ids}},
		"docker.io/library/probe:1":       {Layers: []node.Layer{probe}, Entrypoint: []string{"/probe"}, User: "65532:65532"},
		"docker.io/library/pause:1":       {Layers: []node.Layer{pause}, Entrypoint: []string{"/pause"}, User: "65532:65532"},
	})
	for _, layer := range []node.Layer{system, ids, probe, pause} {
		err = errors.Join(err, os.Remove(string(layer)))
	}
	if err != nil {
		return err
	}
	archives, err := filepath.Glob(filepath.Join(repository, "dist", "packages", "*.oci.tar"))
	if err != nil || len(archives) != 1 {
		return fmt.Errorf("there is not one image in dist/packages: run make packages: %v", err)
	}
	if err := k.ImportArchive(ctx, archives[0], "docker.io/library/pgbaton"); err != nil {
		return err
	}
	names, err := k.Exec(ctx, "", "ctr", "--address", "/run/containerd.sock", "--namespace", "k8s.io", "images", "ls", "-q", "name~=pgbaton")
	for line := range strings.Lines(names) {
		if _, tag, ok := strings.Cut(strings.TrimSpace(line), "library/pgbaton:"); ok {
			k.version = tag
		}
	}
	if k.version == "" && err == nil {
		err = fmt.Errorf("pgbaton's image has no tag: %s", names)
	}
	return err
}

// postgresIs999 is a layer with that user's and group's ids.
func (k *kube) postgresIs999(ctx context.Context, root string) (node.Layer, error) {
	etc := filepath.Join(k.made, "ids", "etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return "", err
	}
	for _, name := range []string{"passwd", "group"} {
		content, err := os.ReadFile(filepath.Join(root, "etc", name))
		if err != nil {
			return "", err
		}
		var lines []string
		for line := range strings.Lines(string(content)) {
			if f := strings.Split(line, ":"); f[0] == "postgres" {
				f[2] = "999"
				if name == "passwd" {
					f[3] = "999"
				}
				line = strings.Join(f, ":")
			}
			lines = append(lines, line)
		}
		if err := os.WriteFile(filepath.Join(etc, name), []byte(strings.Join(lines, "")), 0o644); err != nil {
			return "", err
		}
	}
	return k.Tar(ctx, "ids", filepath.Dir(etc), "--owner=0", "--group=0")
}
