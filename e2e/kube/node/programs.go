package node

import (
	"context"
	"path/filepath"
)

// program is one of the node's, in the order of their start.
type program struct {
	name  string
	argv  []string
	ready func(context.Context) error // nil: nobody waits for it
}

func (n *Node) programs() []program {
	at := func(name string) string { return filepath.Join(n.dir, name) }
	pki := func(name string) string { return at("pki/" + name) }
	config := func(user string) string { return at(user + ".kubeconfig") }
	box := func(name string, ready func(context.Context) error, args ...string) program {
		return program{name, append([]string{n.kubebox, name}, args...), ready}
	}
	return []program{
		{"containerd", []string{"containerd", "--config", at("containerd.toml")}, func(ctx context.Context) error {
			_, err := n.Exec(ctx, "", "ctr", "--address", "/run/containerd.sock", "version")
			return err
		}},
		box("etcd", nil, "--data-dir", at("etcd")),
		box("kube-apiserver", func(ctx context.Context) error {
			_, err := n.Kubectl(ctx, "", "get", "--raw", "/readyz")
			return err
		},
			"--etcd-servers=http://127.0.0.1:2379", "--bind-address="+Address, "--advertise-address="+Address, "--secure-port=6443",
			"--service-cluster-ip-range="+services, "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
			"--client-ca-file="+pki("ca.crt"), "--tls-cert-file="+pki("server.crt"), "--tls-private-key-file="+pki("server.key"),
			"--kubelet-client-certificate="+pki("apiserver.crt"), "--kubelet-client-key="+pki("apiserver.key"),
			"--kubelet-preferred-address-types=InternalIP", "--service-account-issuer=https://kubernetes.default.svc."+domain,
			"--service-account-key-file="+pki("accounts.pub"), "--service-account-signing-key-file="+pki("accounts.key")),
		box("kube-controller-manager", nil, "--kubeconfig="+config("controllers"), "--bind-address=127.0.0.1", "--leader-elect=false",
			"--use-service-account-credentials=true", "--service-account-private-key-file="+pki("accounts.key"),
			"--root-ca-file="+pki("ca.crt")),
		box("kube-scheduler", nil, "--kubeconfig="+config("scheduler"), "--bind-address=127.0.0.1", "--leader-elect=false"),
		box("kubelet", nil, "--config="+at("kubelet.yaml"), "--kubeconfig="+config("kubelet"), "--hostname-override="+Name,
			"--node-ip="+Address),
		box("kube-proxy", nil, "--config="+at("proxy.yaml")),
		{"netpol", []string{n.netpol, "--kubeconfig", config("admin"), "--hostname-override", Name, "--service-cluster-ip-range", services}, nil},
		box("dns", nil, "--kubeconfig", config("admin"), "--listen", Address+":53"),
		box("volumes", nil, "--kubeconfig", config("admin"), "--node", Name, "--dir", at("volumes")),
	}
}
