package check

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The fields of the operators' resources that the overlays use, and no others: a field that is
// not listed here fails the strict decoding. Names and types were compared with the operators' own
// definitions: StackGres, crds/SGCluster.yaml and SGDbOps.yaml of 1.15 to 1.17; postgres-operator,
// manifests/postgresql.crd.yaml and pkg/cluster/k8sres.go of 1.8 to 1.10. Where a field holds a
// piece of a pod, it is the API type itself.

type sgCluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Instances int    `json:"instances"`
		Profile   string `json:"profile,omitempty"`
		Postgres  struct {
			Version string `json:"version"`
		} `json:"postgres"`
		Configurations struct {
			Credentials struct {
				Users struct {
					Superuser struct {
						Password corev1.SecretKeySelector `json:"password"`
					} `json:"superuser"`
				} `json:"users"`
			} `json:"credentials"`
			Patroni struct {
				InitialConfig map[string]any `json:"initialConfig"`
			} `json:"patroni"`
		} `json:"configurations"`
		Pods struct {
			PersistentVolume struct {
				Size string `json:"size"`
			} `json:"persistentVolume"`
			DisableConnectionPooling bool                            `json:"disableConnectionPooling,omitempty"`
			DisableEnvoy             bool                            `json:"disableEnvoy,omitempty"`
			CustomVolumes            []sgVolume                      `json:"customVolumes,omitempty"`
			CustomInitContainers     []corev1.Container              `json:"customInitContainers,omitempty"`
			CustomVolumeMounts       map[string][]corev1.VolumeMount `json:"customVolumeMounts,omitempty"`
		} `json:"pods"`
	} `json:"spec"`
}

// sgVolume has the kinds of volumes that StackGres lets through, of those that we use.
type sgVolume struct {
	Name      string                        `json:"name"`
	EmptyDir  *corev1.EmptyDirVolumeSource  `json:"emptyDir,omitempty"`
	ConfigMap *corev1.ConfigMapVolumeSource `json:"configMap,omitempty"`
	Secret    *corev1.SecretVolumeSource    `json:"secret,omitempty"`
	Projected *corev1.ProjectedVolumeSource `json:"projected,omitempty"`
}

// pod is what the operator makes of it, as far as we know.
func (c *sgCluster) pod() pod {
	p := pod{owner: "SGCluster " + c.Name, partial: true}
	for _, v := range c.Spec.Pods.CustomVolumes {
		p.spec.Volumes = append(p.spec.Volumes, corev1.Volume{Name: "custom-" + v.Name, VolumeSource: corev1.VolumeSource{
			EmptyDir: v.EmptyDir, ConfigMap: v.ConfigMap, Secret: v.Secret, Projected: v.Projected}})
	}
	for _, c := range c.Spec.Pods.CustomInitContainers {
		c.Name = "custom-" + c.Name
		p.spec.InitContainers = append(p.spec.InitContainers, c)
	}
	for name, mounts := range c.Spec.Pods.CustomVolumeMounts {
		p.spec.Containers = append(p.spec.Containers, corev1.Container{Name: name, VolumeMounts: mounts})
	}
	return p
}

type sgDbOps struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		SGCluster string `json:"sgCluster"`
		Op        string `json:"op"`
		Restart   struct {
			Method             string `json:"method,omitempty"`
			OnlyPendingRestart bool   `json:"onlyPendingRestart,omitempty"`
		} `json:"restart"`
	} `json:"spec"`
}

type postgresql struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		TeamID            string `json:"teamId"`
		NumberOfInstances int32  `json:"numberOfInstances"`
		Postgresql        struct {
			Version string `json:"version"`
		} `json:"postgresql"`
		Patroni struct {
			TTL          uint32 `json:"ttl,omitempty"`
			LoopWait     uint32 `json:"loop_wait,omitempty"`
			RetryTimeout uint32 `json:"retry_timeout,omitempty"`
		} `json:"patroni"`
		Volume struct {
			Size string `json:"size"`
		} `json:"volume"`
		SpiloRunAsUser    *int64          `json:"spiloRunAsUser,omitempty"`
		SpiloRunAsGroup   *int64          `json:"spiloRunAsGroup,omitempty"`
		SpiloFSGroup      *int64          `json:"spiloFSGroup,omitempty"`
		Env               []corev1.EnvVar `json:"env,omitempty"`
		AdditionalVolumes []struct {
			Name             string              `json:"name"`
			MountPath        string              `json:"mountPath"`
			TargetContainers []string            `json:"targetContainers,omitempty"`
			VolumeSource     corev1.VolumeSource `json:"volumeSource"`
		} `json:"additionalVolumes,omitempty"`
		InitContainers []corev1.Container `json:"initContainers,omitempty"`
	} `json:"spec"`
}

func (c *postgresql) pod() pod {
	p := pod{owner: "postgresql " + c.Name, partial: true}
	mounts := map[string][]corev1.VolumeMount{}
	for _, v := range c.Spec.AdditionalVolumes {
		p.spec.Volumes = append(p.spec.Volumes, corev1.Volume{Name: v.Name, VolumeSource: v.VolumeSource})
		for _, target := range v.TargetContainers {
			mounts[target] = append(mounts[target], corev1.VolumeMount{Name: v.Name, MountPath: v.MountPath})
		}
	}
	p.spec.InitContainers = c.Spec.InitContainers
	for name, mounts := range mounts {
		p.spec.Containers = append(p.spec.Containers, corev1.Container{Name: name, VolumeMounts: mounts, Env: c.Spec.Env})
	}
	return p
}
