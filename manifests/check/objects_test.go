package check

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestObjects(t *testing.T) {
	for _, name := range append(slices.Clone(clusters), load) {
		t.Run(name, func(t *testing.T) {
			b := build(t, name)
			if name == load {
				b.borrow(build(t, plain)) // it is applied beside a cluster
			}
			if len(b.pods) == 0 {
				t.Fatal("no pods at all")
			}
			for _, p := range b.pods {
				t.Run(p.owner, func(t *testing.T) {
					b.checkMounts(t, p)
					b.checkReferences(t, p)
					b.checkImages(t, p)
					checkSecurity(t, p)
				})
			}
			b.checkServices(t)
			b.checkSelectors(t)
			b.checkAccess(t)
		})
	}
}

// borrow takes over what another build defines, without its pods.
func (b *built) borrow(from *built) {
	b.configMaps, b.secrets, b.services, b.accounts = from.configMaps, from.secrets, from.services, from.accounts
}

func containers(p pod) []corev1.Container {
	return append(slices.Clone(p.spec.InitContainers), p.spec.Containers...)
}

func volume(p pod, name string) *corev1.Volume {
	for i := range p.spec.Volumes {
		if p.spec.Volumes[i].Name == name {
			return &p.spec.Volumes[i]
		}
	}
	return nil
}

func (b *built) checkMounts(t *testing.T, p pod) {
	t.Helper()
	used := map[string]bool{}
	for _, c := range containers(p) {
		at := map[string]bool{}
		for _, m := range c.VolumeMounts {
			used[m.Name] = true
			if volume(p, m.Name) == nil {
				t.Errorf("%s mounts %q, which is no volume", c.Name, m.Name)
			}
			if m.SubPath != "" || m.SubPathExpr != "" {
				t.Errorf("%s mounts %q with a subPath: the kubelet never updates that", c.Name, m.Name)
			}
			if at[m.MountPath] {
				t.Errorf("%s has two volumes at %s", c.Name, m.MountPath)
			}
			at[m.MountPath] = true
		}
	}
	for _, v := range p.spec.Volumes {
		if !used[v.Name] {
			t.Errorf("volume %q is mounted nowhere", v.Name)
		}
	}
}

// files are the names that a volume's folder will have; ok is false for one that starts empty.
func (b *built) files(v corev1.Volume) (names []string, ok bool, err error) {
	configMap := func(name string) error {
		m := b.configMaps[name]
		if m == nil {
			return fmt.Errorf("no ConfigMap %q", name)
		}
		names = append(names, slices.Sorted(maps.Keys(m.Data))...)
		return nil
	}
	secret := func(name string) error {
		s := b.secrets[name]
		if s == nil {
			return fmt.Errorf("no Secret %q", name)
		}
		names = append(names, slices.Sorted(maps.Keys(s.Data))...)
		return nil
	}
	switch {
	case v.ConfigMap != nil:
		err = configMap(v.ConfigMap.Name)
	case v.Secret != nil:
		err = secret(v.Secret.SecretName)
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			switch {
			case s.ConfigMap != nil:
				err = configMap(s.ConfigMap.Name)
			case s.Secret != nil:
				err = secret(s.Secret.Name)
			default:
				err = fmt.Errorf("volume %q: no check knows this source", v.Name)
			}
			if err != nil {
				break
			}
		}
	case v.DownwardAPI != nil:
		for _, item := range v.DownwardAPI.Items {
			names = append(names, item.Path)
		}
	case v.EmptyDir != nil, v.PersistentVolumeClaim != nil:
		return nil, false, nil
	default:
		err = fmt.Errorf("volume %q: no check knows this source", v.Name)
	}
	if err == nil {
		sorted := slices.Sorted(slices.Values(names))
		if len(slices.Compact(sorted)) != len(names) {
			err = fmt.Errorf("volume %q has a name twice: %v", v.Name, names)
		}
	}
	return names, true, err
}

// provides says whether a file will be at this path of the container, and whether it is a writable
// place when there is none.
func (b *built) provides(p pod, c corev1.Container, file string) (present, writable bool) {
	for _, m := range c.VolumeMounts {
		rel, inside := strings.CutPrefix(file, strings.TrimSuffix(m.MountPath, "/")+"/")
		if !inside {
			continue
		}
		v := volume(p, m.Name)
		if v == nil {
			return false, false
		}
		names, filled, err := b.files(*v)
		return filled && err == nil && slices.Contains(names, rel), !filled && !m.ReadOnly
	}
	return false, false
}

func (b *built) checkReferences(t *testing.T, p pod) {
	t.Helper()
	for _, v := range p.spec.Volumes {
		if _, _, err := b.files(v); err != nil {
			t.Error(err)
		}
	}
	for _, c := range containers(p) {
		for _, e := range c.Env {
			if e.ValueFrom == nil {
				continue
			}
			if ref := e.ValueFrom.SecretKeyRef; ref != nil {
				b.checkKey(t, *ref)
			}
			if e.ValueFrom.ConfigMapKeyRef != nil {
				t.Errorf("%s: %s: no check knows ConfigMap keys", c.Name, e.Name)
			}
		}
	}
	if name := p.spec.ServiceAccountName; name != "" && !b.accounts[name] {
		t.Errorf("no ServiceAccount %q", name)
	}
	if !p.partial && p.spec.ServiceAccountName == "" &&
		(p.spec.AutomountServiceAccountToken == nil || *p.spec.AutomountServiceAccountToken) {
		t.Error("mounts a token that nothing in it needs")
	}
}

func (b *built) checkKey(t *testing.T, ref corev1.SecretKeySelector) {
	t.Helper()
	s := b.secrets[ref.Name]
	if s == nil {
		t.Errorf("no Secret %q", ref.Name)
	} else if len(s.Data[ref.Key]) == 0 {
		t.Errorf("Secret %q has no key %q", ref.Name, ref.Key)
	}
}

func (b *built) checkImages(t *testing.T, p pod) {
	t.Helper()
	for _, c := range containers(p) {
		if c.Image == "" && p.partial {
			continue
		}
		name, tag, ok := strings.Cut(c.Image, ":")
		if !ok || tag == "" || tag == "latest" {
			t.Errorf("%s: image %q has no fixed tag", c.Name, c.Image)
		}
		if strings.ContainsAny(name, "./") {
			t.Errorf("%s: image %q names a registry: that is for the one who deploys", c.Name, c.Image)
		}
	}
}

// checkSecurity: non-root, a read-only root file system, no capabilities. In an operator's pod
// that holds for our containers.
func checkSecurity(t *testing.T, p pod) {
	t.Helper()
	podContext := p.spec.SecurityContext
	if podContext == nil {
		podContext = new(corev1.PodSecurityContext)
	}
	if p.spec.HostNetwork || p.spec.HostPID || p.spec.HostIPC {
		t.Error("shares a namespace of the host")
	}
	if p.spec.ShareProcessNamespace != nil && *p.spec.ShareProcessNamespace {
		t.Error("shares its processes: then Patroni is not process 1 and nobody reaps the server")
	}
	for _, c := range containers(p) {
		if c.Image == "" && p.partial {
			continue
		}
		s := c.SecurityContext
		if s == nil {
			t.Errorf("%s has no security context", c.Name)
			continue
		}
		nonRoot, user, profile := s.RunAsNonRoot, s.RunAsUser, s.SeccompProfile
		if nonRoot == nil {
			nonRoot = podContext.RunAsNonRoot
		}
		if user == nil {
			user = podContext.RunAsUser
		}
		if profile == nil {
			profile = podContext.SeccompProfile
		}
		is := func(p *bool, want bool) bool { return p != nil && *p == want }
		for what, holds := range map[string]bool{
			"runAsNonRoot: true":              is(nonRoot, true),
			"runAsUser other than 0":          user != nil && *user != 0,
			"readOnlyRootFilesystem: true":    is(s.ReadOnlyRootFilesystem, true),
			"allowPrivilegeEscalation: false": is(s.AllowPrivilegeEscalation, false),
			"capabilities: {drop: [ALL]}": s.Capabilities != nil && len(s.Capabilities.Add) == 0 &&
				slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}),
			"seccompProfile: {type: RuntimeDefault}": profile != nil && profile.Type == corev1.SeccompProfileTypeRuntimeDefault,
			"not privileged":                         s.Privileged == nil || !*s.Privileged,
		} {
			if !holds {
				t.Errorf("%s is without %s", c.Name, what)
			}
		}
		if c.Resources.Requests.Cpu().IsZero() || c.Resources.Limits.Memory().IsZero() {
			t.Errorf("%s has no request for CPU or no limit of memory", c.Name)
		}
	}
}

func (b *built) checkServices(t *testing.T) {
	t.Helper()
	for name, s := range b.services {
		if b.name == load || len(s.Spec.Selector) == 0 {
			continue // borrowed; or Patroni writes the endpoints
		}
		found := false
		for _, p := range b.pods {
			if !selects(s.Spec.Selector, p.labels) {
				continue
			}
			found = true
			for _, port := range s.Spec.Ports {
				if !hasPort(p, port.TargetPort.StrVal) {
					t.Errorf("Service %s: %s has no port named %q", name, p.owner, port.TargetPort.StrVal)
				}
			}
		}
		if !found {
			t.Errorf("Service %s: its selector %v finds no pod", name, s.Spec.Selector)
		}
	}
	for _, set := range b.sets {
		if s := b.services[set.Spec.ServiceName]; s == nil || s.Spec.ClusterIP != corev1.ClusterIPNone {
			t.Errorf("StatefulSet %s: %q is no headless Service", set.Name, set.Spec.ServiceName)
		}
	}
	for _, p := range b.pods {
		for _, c := range p.spec.Containers {
			for _, probe := range []*corev1.Probe{c.ReadinessProbe, c.LivenessProbe, c.StartupProbe} {
				if probe == nil {
					continue
				}
				port := ""
				if probe.HTTPGet != nil {
					port = probe.HTTPGet.Port.StrVal
				} else if probe.TCPSocket != nil {
					port = probe.TCPSocket.Port.StrVal
				}
				if !hasPort(p, port) {
					t.Errorf("%s: %s: a probe of port %q, which it has not", p.owner, c.Name, port)
				}
			}
		}
	}
}

func hasPort(p pod, name string) bool {
	for _, c := range p.spec.Containers {
		for _, port := range c.Ports {
			if port.Name == name {
				return true
			}
		}
	}
	return false
}

func (b *built) checkAccess(t *testing.T) {
	t.Helper()
	for _, binding := range b.bindings {
		if b.roles[binding.RoleRef.Name] == nil {
			t.Errorf("RoleBinding %s: no Role %q", binding.Name, binding.RoleRef.Name)
		}
		for _, subject := range binding.Subjects {
			if subject.Kind != "ServiceAccount" || !b.accounts[subject.Name] {
				t.Errorf("RoleBinding %s: no ServiceAccount %q", binding.Name, subject.Name)
			}
		}
	}
	for name, role := range b.roles {
		for _, rule := range role.Rules {
			if slices.Contains(rule.Verbs, "*") || slices.Contains(rule.Resources, "*") || slices.Contains(rule.Resources, "secrets") {
				t.Errorf("Role %s allows more than Patroni needs: %v", name, rule)
			}
		}
	}
	if b.sgCluster != nil {
		b.checkKey(t, b.sgCluster.Spec.Configurations.Credentials.Users.Superuser.Password)
	}
}

// container finds the one that runs Patroni, and so the hooks.
func (b *built) patroni(t *testing.T) (pod, corev1.Container) {
	t.Helper()
	for _, p := range b.pods {
		for _, c := range p.spec.Containers {
			if c.Name == "patroni" || c.Name == "postgres" {
				return p, c
			}
		}
	}
	t.Fatal("no container runs Patroni")
	panic("unreachable")
}

func (b *built) pooler(t *testing.T) (pod, corev1.Container) {
	t.Helper()
	for _, p := range b.pods {
		for _, c := range p.spec.Containers {
			if c.Name == "pgbouncer" {
				return p, c
			}
		}
	}
	t.Fatal("no container runs PgBouncer")
	panic("unreachable")
}

// route is the Service that leads to the primary: ours, or the one that an operator makes.
func (b *built) isPrimaryService(host string) bool {
	switch {
	case b.sgCluster != nil:
		return host == b.sgCluster.Name
	case b.postgresql != nil:
		return host == b.postgresql.Name
	}
	s := b.services[host]
	return s != nil && len(s.Spec.Selector) == 0 && s.Spec.ClusterIP != corev1.ClusterIPNone
}

func TestLoad(t *testing.T) {
	b := build(t, load)
	cluster := build(t, plain)
	for _, p := range b.pods {
		for _, c := range containers(p) {
			env := map[string]string{}
			for _, e := range c.Env {
				env[e.Name] = e.Value
			}
			s := cluster.services[env["PGHOST"]]
			if s == nil || s.Spec.ClusterIP == corev1.ClusterIPNone || fmt.Sprint(s.Spec.Ports[0].Port) != env["PGPORT"] {
				t.Errorf("%s: PGHOST %q, PGPORT %q are no Service for applications", c.Name, env["PGHOST"], env["PGPORT"])
			}
			if !regexp.MustCompile(`(^|exec )pgbench `).MatchString(strings.Join(c.Command, " ")) {
				t.Errorf("%s runs %v", c.Name, c.Command)
			}
		}
		run := strings.Join(p.spec.Containers[0].Command, " ")
		for _, want := range []string{"-T 300", "-c 4", "-j 4", "-P 2"} {
			if !strings.Contains(run+" ", " "+want+" ") {
				t.Errorf("%q is without %s", run, want)
			}
		}
	}
}

// checkSelectors follows what budgets and policies say about pods, and about ports by their names.
func (b *built) checkSelectors(t *testing.T) {
	t.Helper()
	selected := func(selector *metav1.LabelSelector) (found []pod) {
		for _, p := range b.pods {
			if selector != nil && len(selector.MatchLabels) > 0 && selects(selector.MatchLabels, p.labels) {
				found = append(found, p)
			}
		}
		return found
	}
	for _, o := range b.budgets {
		if len(selected(o.Spec.Selector)) != 1 {
			t.Errorf("PodDisruptionBudget %s is not for the pods of one owner", o.Name)
		}
	}
	for _, o := range b.policies {
		own := selected(&o.Spec.PodSelector)
		if len(own) != 1 {
			t.Errorf("NetworkPolicy %s is not for the pods of one owner", o.Name)
			continue
		}
		for _, rule := range o.Spec.Ingress {
			for _, from := range rule.From {
				// Clients are other people's pods.
				if _, client := from.PodSelector.MatchLabels["database-client"]; !client && len(selected(from.PodSelector)) == 0 {
					t.Errorf("NetworkPolicy %s lets in %v, which is nobody", o.Name, from.PodSelector.MatchLabels)
				}
			}
			for _, port := range rule.Ports {
				if !slices.ContainsFunc(own[0].spec.Containers, func(c corev1.Container) bool {
					return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == port.Port.StrVal })
				}) {
					t.Errorf("NetworkPolicy %s: there is no port %s", o.Name, port.Port.StrVal)
				}
			}
		}
	}
	if b.name == plain && (len(b.policies) != 2 || len(b.budgets) != 2) {
		t.Errorf("%d NetworkPolicies, %d PodDisruptionBudgets", len(b.policies), len(b.budgets))
	}
}
