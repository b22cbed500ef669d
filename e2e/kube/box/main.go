// kubebox is a Kubernetes of one node in one program, for the tests: each of its own programs under its own name, and what a node needs
// beside them.
//
//	kubebox etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kubelet|kube-proxy|kubectl|dns|volumes [flags]
//
// Kubernetes is pinned in go.mod: as a library it has no promise of stability.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// programs are Kubernetes' own.
var programs = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllers.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
	"kube-proxy":              proxy.NewProxyCommand,
	"kubectl":                 kubectl.NewDefaultKubectlCommand,
}

// beside are the other programs of a node. Each runs until its context ends.
var beside = map[string]func(ctx context.Context, args []string) error{
	"etcd":    serveEtcd,
	"dns":     serveDNS,
	"volumes": makeVolumes,
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "kubebox: the name of a program is missing")
		os.Exit(2)
	}
	name := os.Args[1]
	os.Args = os.Args[1:]
	if command, ok := programs[name]; ok {
		os.Exit(cli.Run(command()))
	}
	run, ok := beside[name]
	if !ok {
		fmt.Fprintln(os.Stderr, "kubebox: there is no program", name)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}
