package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// order is what the node's first process is told over its standard input, one JSON value each. It answers each with an [answer].
type order struct {
	Name   string      // of a process
	Start  []string    // its argument list: start it
	Signal unix.Signal // or send it this
}

type answer struct {
	Error string
}

// firstOf is the variable that makes a program the first process of a node. Its value is the node's folder.
const firstOf = "PGBATON_KUBE_NODE"

// First is to be called first of all by every program that calls [Start]: started anew by it, the program is the first process of the
// node's namespaces, and First does not return.
func First() {
	dir := os.Getenv(firstOf)
	if dir == "" {
		return
	}
	os.Unsetenv(firstOf)
	if err := first(dir); err != nil {
		fmt.Fprintln(os.Stderr, "first process of the node:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// first makes the namespaces a machine and starts what it is told to, until its standard input ends. With it the kernel ends every process
// of the node, and the last one's mounts and interfaces go with it.
func first(dir string) error {
	if err := machine(dir); err != nil {
		return err
	}
	p := &processes{dir: dir, ids: map[string]int{}}
	go p.reap()
	answers := json.NewEncoder(os.Stdout)
	if err := answers.Encode(answer{}); err != nil {
		return err
	}
	for orders := json.NewDecoder(os.Stdin); ; {
		var o order
		switch err := orders.Decode(&o); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		var a answer
		if err := p.do(o); err != nil {
			a.Error = err.Error()
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
}

// machine gives the namespaces what a machine has: its name, its own /run, /proc and /sys, an address and a default route that leads
// nowhere, which kubelet and kube-proxy want to see. Folders with fixed names become folders of the node's.
func machine(dir string) error {
	if err := unix.Sethostname([]byte(Name)); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	cgroups := filepath.Join(dir, "cgroup")
	type mount struct {
		from, on, kind string
		flags          uintptr
	}
	mounts := []mount{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"", "/", "", unix.MS_REC | unix.MS_SHARED}, // the kubelet asks for it
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"/sys/fs/cgroup", cgroups, "", unix.MS_BIND | unix.MS_REC},
		{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC}, // of this network namespace
		{cgroups, "/sys/fs/cgroup", "", unix.MS_BIND | unix.MS_REC},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV},
	}
	for _, fixed := range []string{"/var/lib/kubelet", "/var/lib/cni", "/var/log"} {
		own := filepath.Join(dir, filepath.Base(fixed))
		if err := errors.Join(os.MkdirAll(own, 0o755), os.MkdirAll(fixed, 0o755)); err != nil {
			return err
		}
		mounts = append(mounts, mount{own, fixed, "", unix.MS_BIND})
	}
	if err := os.MkdirAll(cgroups, 0o755); err != nil {
		return err
	}
	for _, m := range mounts {
		if err := unix.Mount(m.from, m.on, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.from, m.on, err)
		}
	}
	for _, command := range []string{
		"ip link set lo up",
		"ip link add node0 type veth peer name node0-out",
		"ip addr add " + Address + "/24 dev node0",
		"ip link set node0 up",
		"ip link set node0-out up",
		"ip route add default via " + gateway + " dev node0",
	} {
		words := strings.Fields(command)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", command, err, out)
		}
	}
	// Both belong to the network namespace (Linux 5.3).
	for _, setting := range []string{"ipv4/ip_forward", "bridge/bridge-nf-call-iptables"} {
		if err := os.WriteFile("/proc/sys/net/"+setting, []byte("1\n"), 0); err != nil {
			return err
		}
	}
	return nil
}

// processes are what the first process has started. It has no exec.Cmd for them: as the first one it is the parent of every orphan, and
// waits for all of them at once.
type processes struct {
	dir string
	ids map[string]int // of the process namespace; used by one goroutine
}

func (p *processes) do(o order) error {
	if len(o.Start) == 0 {
		return unix.Kill(p.ids[o.Name], o.Signal)
	}
	log, err := os.OpenFile(filepath.Join(p.dir, "log", o.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	path, err := exec.LookPath(o.Start[0])
	if err != nil {
		return err
	}
	process, err := os.StartProcess(path, o.Start, &os.ProcAttr{Dir: "/", Files: []*os.File{nil, log, log}})
	if err != nil {
		return err
	}
	p.ids[o.Name] = process.Pid
	return process.Release()
}

// reap waits for whatever ends.
func (p *processes) reap() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	for range ended {
		for {
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 && !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
}
