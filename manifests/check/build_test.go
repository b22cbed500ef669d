package check

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// What a person applies.
const (
	plain     = "base"
	stackgres = "overlays/stackgres"
	spilo     = "overlays/spilo"
	load      = "pgbench"
)

var clusters = []string{plain, stackgres, spilo}

// tree is a copy of manifests/ with generated passwords.
func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, sub := range []string{"base", "credentials", "overlays", "pgbench", "pooler"} {
		if err := os.CopyFS(filepath.Join(dir, sub), os.DirFS(filepath.Join("..", sub))); err != nil {
			t.Fatal(err)
		}
	}
	// Passwords of this machine's own user, if there are any, are none of our business.
	for _, name := range passwordFiles {
		_ = os.Remove(filepath.Join(dir, "credentials", name))
	}
	return dir
}

var passwordFiles = []string{"superuser-password", "replication-password", "pgbouncer-admin-password", "pgpass", "userlist.txt",
	"tls.crt", "tls.key", "tokens", "operator-token", "member-token"}

func generate(t *testing.T, dir string, env ...string) {
	t.Helper()
	cmd := exec.Command("sh", filepath.Join(dir, "credentials", "generate.sh"))
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("generate.sh: %v\n%s", err, out)
	}
}

// built is one kustomization's objects, decoded strictly.
type built struct {
	name       string
	dir        string // the copy that it was built from
	configMaps map[string]*corev1.ConfigMap
	secrets    map[string]*corev1.Secret
	services   map[string]*corev1.Service
	accounts   map[string]bool
	roles      map[string]*rbacv1.Role
	bindings   []*rbacv1.RoleBinding
	pods       []pod
	sets       []*appsv1.StatefulSet
	budgets    []*policyv1.PodDisruptionBudget
	policies   []*networkingv1.NetworkPolicy
	sgCluster  *sgCluster
	postgresql *postgresql
}

// pod is what will run, whoever makes it: a built-in controller or an operator.
type pod struct {
	owner  string
	labels map[string]string
	spec   corev1.PodSpec
	// An operator adds its own containers, volumes and contexts around ours.
	partial bool
}

func build(t *testing.T, name string) *built {
	t.Helper()
	dir := tree(t)
	generate(t, dir)
	return buildIn(t, dir, name)
}

func buildIn(t *testing.T, dir, name string) *built {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(dir, name))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	b := &built{
		name: name, dir: dir,
		configMaps: map[string]*corev1.ConfigMap{}, secrets: map[string]*corev1.Secret{},
		services: map[string]*corev1.Service{}, accounts: map[string]bool{}, roles: map[string]*rbacv1.Role{},
	}
	decoder := strictDecoder(t)
	for _, r := range resources.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		id := r.GetKind() + " " + r.GetName()
		switch r.GetApiVersion() {
		case "stackgres.io/v1":
			b.sgCluster = new(sgCluster)
			unmarshalStrict(t, id, text, b.sgCluster)
			b.pods = append(b.pods, b.sgCluster.pod())
			continue
		case "acid.zalan.do/v1":
			b.postgresql = new(postgresql)
			unmarshalStrict(t, id, text, b.postgresql)
			b.pods = append(b.pods, b.postgresql.pod())
			continue
		}
		object, _, err := decoder.Decode(text, nil, nil)
		if err != nil {
			t.Errorf("%s: %s: %v", name, id, err)
			continue
		}
		switch o := object.(type) {
		case *corev1.ConfigMap:
			b.configMaps[o.Name] = o
		case *corev1.Secret:
			b.secrets[o.Name] = o
		case *corev1.Service:
			b.services[o.Name] = o
		case *corev1.ServiceAccount:
			b.accounts[o.Name] = true
		case *rbacv1.Role:
			b.roles[o.Name] = o
		case *rbacv1.RoleBinding:
			b.bindings = append(b.bindings, o)
		case *appsv1.StatefulSet:
			b.sets = append(b.sets, o)
			p := pod{owner: id, labels: o.Spec.Template.Labels, spec: o.Spec.Template.Spec}
			for _, claim := range o.Spec.VolumeClaimTemplates {
				p.spec.Volumes = append(p.spec.Volumes, corev1.Volume{Name: claim.Name, VolumeSource: corev1.VolumeSource{
					PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name}}})
			}
			b.pods = append(b.pods, p)
			matches(t, id, o.Spec.Selector.MatchLabels, p.labels)
		case *appsv1.Deployment:
			b.pods = append(b.pods, pod{owner: id, labels: o.Spec.Template.Labels, spec: o.Spec.Template.Spec})
			matches(t, id, o.Spec.Selector.MatchLabels, o.Spec.Template.Labels)
		case *batchv1.Job:
			b.pods = append(b.pods, pod{owner: id, labels: o.Spec.Template.Labels, spec: o.Spec.Template.Spec})
		case *policyv1.PodDisruptionBudget:
			b.budgets = append(b.budgets, o)
		case *networkingv1.NetworkPolicy:
			b.policies = append(b.policies, o)
		default:
			t.Errorf("%s: %s: no check knows this kind", name, id)
		}
	}
	return b
}

func strictDecoder(t *testing.T) runtime.Decoder {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, rbacv1.AddToScheme,
		policyv1.AddToScheme, networkingv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
}

func unmarshalStrict(t *testing.T, what string, text []byte, into any) {
	t.Helper()
	text, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	// encoding/json would let a key through whose letters have the wrong case.
	problems, err := json.UnmarshalStrict(text, into)
	for _, err := range append(problems, err) {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func matches(t *testing.T, what string, selector, labels map[string]string) {
	t.Helper()
	if !selects(selector, labels) {
		t.Errorf("%s: selector %v does not select labels %v", what, selector, labels)
	}
}

func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return len(selector) > 0
}

func TestWithoutPasswordsNothingBuilds(t *testing.T) {
	for _, name := range clusters {
		dir := tree(t)
		_, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(dir, name))
		if err == nil || !strings.Contains(err.Error(), "superuser-password") {
			t.Errorf("%s without generate.sh: want an error that names the missing file, got %v", name, err)
		}
	}
}

func TestGenerate(t *testing.T) {
	dir := tree(t)
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, "credentials", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	generate(t, dir)
	superuser, admin := read("superuser-password"), read("pgbouncer-admin-password")
	if len(superuser) != 48 || superuser == admin || superuser == read("replication-password") {
		t.Errorf("passwords are not 48 random digits of their own each")
	}
	if want := "\"postgres\" \"" + superuser + "\"\n\"pgbouncer_admin\" \"" + admin + "\"\n"; read("userlist.txt") != want {
		t.Errorf("userlist.txt does not hold the same passwords")
	}
	for _, name := range passwordFiles {
		info, err := os.Stat(filepath.Join(dir, "credentials", name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v: others can read it", name, info.Mode())
		}
	}

	generate(t, dir)
	if read("superuser-password") != superuser {
		t.Error("a second run made a new password: the cluster would not know it")
	}

	generate(t, dir, "SUPERUSER_PASSWORD=of-the-cluster")
	if got, want := read("pgpass"), "*:5432:*:postgres:of-the-cluster\n"; got != want {
		t.Errorf("pgpass: got %q, want %q", got, want)
	}

	ignored, err := os.ReadFile(filepath.Join(dir, "credentials", ".gitignore"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range passwordFiles {
		if !bytes.Contains(append([]byte("\n"), ignored...), []byte("\n"+name+"\n")) {
			t.Errorf("credentials/.gitignore does not name %s", name)
		}
	}
}
