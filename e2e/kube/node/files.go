package node

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"text/template"
)

// writeFiles writes what the programs read.
func (n *Node) writeFiles() error {
	for _, dir := range []string{"log", "volumes", "cni", "containerd"} {
		if err := os.MkdirAll(filepath.Join(n.dir, dir), 0o755); err != nil {
			return err
		}
	}
	if err := n.writeCertificates(); err != nil {
		return err
	}
	values := map[string]string{"dir": n.dir, "address": Address, "api": apiURL, "domain": domain, "pods": pods}
	var errs []error
	for name, text := range map[string]string{"containerd.toml": containerdConfig, "cni/10-bridge.conflist": podNetwork,
		"kubelet.yaml": kubeletConfig, "proxy.yaml": proxyConfig, "resolv.conf": ""} {
		var b bytes.Buffer
		errs = append(errs, template.Must(template.New(name).Option("missingkey=error").Parse(text)).Execute(&b, values),
			os.WriteFile(filepath.Join(n.dir, name), b.Bytes(), 0o644))
	}
	return errors.Join(errs...)
}

// Without CAP_SYS_RESOURCE, as in a container, nobody may lower oom_score_adj: runc would fail with each pod's sandbox, and says only that
// it cannot get its child's process id (runc 1.1.5).
const containerdConfig = `version = 2
root = "{{.dir}}/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "/run/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{{.dir}}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + pauseImage + `"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{{.dir}}/cni"
`

const podNetwork = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true, "ipam": {
    "type": "host-local", "ranges": [[{"subnet": "{{.pods}}"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/run/cni"}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {{.address}}
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: {{.dir}}/pki/ca.crt}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix:///run/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
clusterDNS: [{{.address}}]
clusterDomain: {{.domain}}
resolvConf: {{.dir}}/resolv.conf
volumePluginDir: {{.dir}}/plugins
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 200Mi, nodefs.available: 1%, imagefs.available: 1%}
`

// The machine's conntrack settings are not ours to change.
const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
hostnameOverride: ` + Name + `
bindAddress: 0.0.0.0
clientConnection: {kubeconfig: {{.dir}}/proxy.kubeconfig}
detectLocalMode: ClusterCIDR
clusterCIDR: {{.pods}}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`

const storageClass = `apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: kubebox/volumes
volumeBindingMode: Immediate
`
