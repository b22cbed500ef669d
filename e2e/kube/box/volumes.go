package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	core "k8s.io/api/core/v1"
	failed "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// makeVolumes makes a folder and a PersistentVolume of kind "local" for each claim of its storage class. To a local volume the kubelet
// applies a pod's fsGroup, as to one of a CSI driver; to a hostPath it does not.
func makeVolumes(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("volumes", flag.ContinueOnError)
	config := flags.String("kubeconfig", "", "how to reach the API server")
	dir := flags.String("dir", "", "where the folders are")
	node := flags.String("node", "", "the node that has them")
	class := flags.String("class", "local", "storage class")
	if err := flags.Parse(args); err != nil {
		return err
	}
	client, err := connected(*config)
	if err != nil {
		return err
	}
	return wait.PollUntilContextCancel(ctx, 300*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		claims, err := client.CoreV1().PersistentVolumeClaims("").List(ctx, meta.ListOptions{ResourceVersion: "0"})
		if err != nil {
			log.Print(err)
			return false, nil
		}
		for _, claim := range claims.Items {
			if name := claim.Spec.StorageClassName; claim.Spec.VolumeName != "" || name == nil || *name != *class || claim.DeletionTimestamp != nil {
				continue
			}
			path := filepath.Join(*dir, string(claim.UID))
			if err := os.MkdirAll(path, 0o777); err != nil {
				return false, err
			}
			_, err := client.CoreV1().PersistentVolumes().Create(ctx, volume(&claim, path, *node), meta.CreateOptions{})
			if err != nil && !failed.IsAlreadyExists(err) {
				log.Print(err)
			}
		}
		return false, nil
	})
}

func volume(claim *core.PersistentVolumeClaim, path, node string) *core.PersistentVolume {
	files := core.PersistentVolumeFilesystem
	here := core.NodeSelectorRequirement{Key: core.LabelHostname, Operator: core.NodeSelectorOpIn, Values: []string{node}}
	return &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: "pvc-" + string(claim.UID)},
		Spec: core.PersistentVolumeSpec{
			Capacity:                      core.ResourceList{core.ResourceStorage: claim.Spec.Resources.Requests[core.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			VolumeMode:                    &files,
			StorageClassName:              *claim.Spec.StorageClassName,
			PersistentVolumeReclaimPolicy: core.PersistentVolumeReclaimRetain,
			PersistentVolumeSource:        core.PersistentVolumeSource{Local: &core.LocalVolumeSource{Path: path}},
			ClaimRef: &core.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: claim.Namespace, Name: claim.Name,
				UID: claim.UID},
			NodeAffinity: &core.VolumeNodeAffinity{Required: &core.NodeSelector{
				NodeSelectorTerms: []core.NodeSelectorTerm{{MatchExpressions: []core.NodeSelectorRequirement{here}}}}},
		},
	}
}

func connected(kubeconfig string) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	return kubernetes.NewForConfig(config)
}
