// Package node runs a real Kubernetes of one node, in namespaces of its own: etcd, the control plane, kubelet, kube-proxy (all of them are
// kubebox, see e2e/kube/box), Debian's containerd and runc, and what enforces NetworkPolicies (see e2e/kube/netpol). It needs root, and leaves
// nothing behind.
package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

// What the node is called and where it is, in its own network namespace.
const (
	Name    = "node1"
	Address = "10.201.0.1"

	gateway  = "10.201.0.254"
	pods     = "10.202.0.0/24"
	services = "10.96.0.0/16"
	domain   = "cluster.local"
	apiURL   = "https://" + Address + ":6443"
)

// Node is a Kubernetes that runs.
type Node struct {
	dir     string
	kubebox string
	netpol  string
	first   *exec.Cmd
	orders  io.WriteCloser
	talk    sync.Mutex
	answers *json.Decoder
	errors  *bytes.Buffer
	kernel  map[string]string // settings of the machine's, as they were
}

// machineWide are the settings that the kubelet changes for the whole machine (kubelet 1.34, container manager).
var machineWide = []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys",
	"kernel/keys/root_maxbytes"}

// Start starts a node whose state is in dir, an empty folder on a file system that overlayfs can be on. It blocks until the node is Ready,
// for about 20 s, and builds its programs first where they are not built. The node ends with [Node.Close], or with this process.
func Start(ctx context.Context, dir string) (*Node, error) {
	kubebox, err := build(ctx)
	if err != nil {
		return nil, fmt.Errorf("build kubebox: %w", err)
	}
	netpol, err := buildNetpol(ctx)
	if err != nil {
		return nil, fmt.Errorf("build netpol: %w", err)
	}
	n := &Node{dir: dir, kubebox: kubebox, netpol: netpol, kernel: map[string]string{}, errors: &bytes.Buffer{}}
	for _, setting := range machineWide {
		if value, err := os.ReadFile("/proc/sys/" + setting); err == nil {
			n.kernel[setting] = string(value)
		}
	}
	if err := n.start(ctx); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Node) start(ctx context.Context) error {
	if err := n.writeFiles(); err != nil {
		return err
	}
	n.first = exec.Command("/proc/self/exe")
	n.first.Env = append(os.Environ(), firstOf+"="+n.dir)
	n.first.Stderr = n.errors
	n.first.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC,
	}
	var err error
	if n.orders, err = n.first.StdinPipe(); err != nil {
		return err
	}
	out, err := n.first.StdoutPipe()
	if err != nil {
		return err
	}
	n.answers = json.NewDecoder(out)
	if err := n.first.Start(); err != nil {
		return err
	}
	if err := n.answered(); err != nil {
		return err
	}
	for _, p := range n.programs() {
		if err := n.do(order{Name: p.name, Start: p.argv}); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if p.ready == nil {
			continue
		}
		if err := lab.Until(ctx, 100*time.Millisecond, p.name+" to be ready", p.ready); err != nil {
			return fmt.Errorf("%w\nthe end of its log:\n%s", err, n.tail(p.name))
		}
	}
	if _, err := n.Kubectl(ctx, storageClass, "apply", "-f", "-"); err != nil {
		return err
	}
	return lab.Until(ctx, 200*time.Millisecond, "the node to be Ready", func(ctx context.Context) error {
		out, err := n.Kubectl(ctx, "", "get", "node/"+Name, "serviceaccount/default", "-o",
			`jsonpath={.items[0].status.conditions[?(@.type=="Ready")].status}`)
		if err == nil && out != "True" {
			err = fmt.Errorf("its condition Ready is %q", out)
		}
		return err
	})
}

// do tells the first process something and waits for its answer.
func (n *Node) do(o order) error {
	n.talk.Lock()
	defer n.talk.Unlock()
	if err := json.NewEncoder(n.orders).Encode(o); err != nil {
		return fmt.Errorf("the node has ended: %w: %s", err, n.errors)
	}
	return n.answered()
}

func (n *Node) answered() error {
	var a answer
	if err := n.answers.Decode(&a); err != nil {
		return fmt.Errorf("the node has ended: %w: %s", err, n.errors)
	}
	if a.Error != "" {
		return errors.New(a.Error)
	}
	return nil
}

// Signal sends a signal to one of the node's programs, such as kube-apiserver.
func (n *Node) Signal(program string, signal syscall.Signal) error {
	return n.do(order{Name: program, Signal: signal})
}

// Exec runs a program of this machine in the node's namespaces, with input, and returns what it says. The error has what it complains of.
func (n *Node) Exec(ctx context.Context, input string, argv ...string) (string, error) {
	first := strconv.Itoa(n.first.Process.Pid)
	return run(exec.CommandContext(ctx, "nsenter", append([]string{"--target", first, "--net", "--mount", "--uts", "--wdns=/", "--"}, argv...)...),
		input)
}

// Kubectl runs kubectl as the cluster's administrator, on this machine's files.
func (n *Node) Kubectl(ctx context.Context, input string, args ...string) (string, error) {
	return run(n.KubectlCommand(ctx, args...), input)
}

// KubectlCommand is [Node.Kubectl] for who starts it and reads its output while it runs.
func (n *Node) KubectlCommand(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--target", strconv.Itoa(n.first.Process.Pid), "--net", "--",
		n.kubebox, "kubectl", "--kubeconfig", filepath.Join(n.dir, "admin.kubeconfig")}, args...)...)
}

func run(cmd *exec.Cmd, input string) (string, error) {
	var out, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, complaint.String())
	}
	return out.String(), nil
}

// Close ends everything and removes the node's folder.
func (n *Node) Close() error {
	var errs []error
	if n.first != nil && n.first.Process != nil {
		errs = append(errs, n.orders.Close(), n.first.Wait())
	}
	errs = append(errs, removeCgroups())
	for setting, value := range n.kernel {
		if now, err := os.ReadFile("/proc/sys/" + setting); err == nil && string(now) != value {
			errs = append(errs, os.WriteFile("/proc/sys/"+setting, []byte(value), 0))
		}
	}
	return errors.Join(append(errs, os.RemoveAll(n.dir))...)
}

// removeCgroups removes the pods' groups, whose processes have ended; the kernel may need a moment for the last of them.
func removeCgroups() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return lab.Until(ctx, 100*time.Millisecond, "the pods' control groups to be empty", func(context.Context) error {
		roots, err := filepath.Glob("/sys/fs/cgroup/*/kubepods")
		for _, root := range roots {
			err = errors.Join(err, removeGroup(root))
		}
		return err
	})
}

func removeGroup(path string) error {
	entries, err := os.ReadDir(path)
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeGroup(filepath.Join(path, e.Name())))
		}
	}
	if err != nil {
		return err
	}
	return os.Remove(path) // rmdir: its files are the kernel's
}

func (n *Node) tail(program string) string {
	content, err := os.ReadFile(filepath.Join(n.dir, "log", program+".log"))
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-4000):])
}

// SaveLogs copies the logs of the node's programs into a folder.
func (n *Node) SaveLogs(to string) error { return os.CopyFS(to, os.DirFS(filepath.Join(n.dir, "log"))) }
