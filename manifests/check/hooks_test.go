package check

import (
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/pgbaton/pgbaton/config"
)

// hookConfig is what of a Patroni configuration says which programs are run.
type hookConfig struct {
	BeforeStop string            `json:"before_stop"`
	Callbacks  map[string]string `json:"callbacks"`
}

var callbacks = []string{"on_restart", "on_role_change", "on_start", "on_stop"}

func TestHooks(t *testing.T) {
	for _, name := range clusters {
		t.Run(name, func(t *testing.T) {
			b := build(t, name)
			p, c := b.patroni(t)
			hooks := b.hooks(t)
			if hooks.BeforeStop == "" {
				t.Error("no before_stop")
			}
			want := callbacks
			if name == spilo { // what CALLBACK_SCRIPT reaches
				want = []string{"on_role_change", "on_start", "on_stop"}
			}
			if got := slices.Sorted(maps.Keys(hooks.Callbacks)); !slices.Equal(got, want) {
				t.Errorf("callbacks are %v, want %v", got, want)
			}
			folder := installFolder(t, p, c)
			for key, program := range hooks.Callbacks {
				if program != path.Join(folder, "on_role_change") {
					t.Errorf("%s runs %s", key, program)
				}
			}
			for _, program := range append(slices.Collect(maps.Values(hooks.Callbacks)), hooks.BeforeStop) {
				if path.Dir(program) != folder || !slices.Contains(installed, path.Base(program)) {
					t.Errorf("%s is not made by `pgbaton install %s`", program, folder)
				}
			}
		})
	}
}

// hooks reads them from where each kind of cluster has them.
func (b *built) hooks(t *testing.T) hookConfig {
	t.Helper()
	switch {
	case b.sgCluster != nil:
		text, err := yaml.Marshal(b.sgCluster.Spec.Configurations.Patroni.InitialConfig["postgresql"])
		if err != nil {
			t.Fatal(err)
		}
		var hooks hookConfig
		unmarshalStrict(t, "initialConfig", text, &hooks)
		return hooks
	case b.postgresql != nil:
		text, err := os.ReadFile(filepath.Join(b.dir, b.name, "dynamic.yml"))
		if err != nil {
			t.Fatal(err)
		}
		var dynamic struct {
			Postgresql hookConfig `json:"postgresql"`
		}
		unmarshalStrict(t, "dynamic.yml", text, &dynamic)
		hooks := dynamic.Postgresql
		if len(hooks.Callbacks) > 0 {
			t.Error("dynamic.yml: callbacks there are replaced by Spilo's own")
		}
		for _, e := range b.postgresql.Spec.Env {
			switch e.Name {
			case "CALLBACK_SCRIPT":
				hooks.Callbacks = map[string]string{"on_role_change": e.Value, "on_start": e.Value, "on_stop": e.Value}
			case "SPILO_CONFIGURATION":
				t.Error("the operator drops SPILO_CONFIGURATION from spec.env")
			}
		}
		return hooks
	}
	return b.patroniConfig(t).Postgresql.hookConfig
}

type patroniConfig struct {
	Scope      string `json:"scope"`
	Kubernetes struct {
		UseEndpoints     bool              `json:"use_endpoints"`
		ScopeLabel       string            `json:"scope_label"`
		RoleLabel        string            `json:"role_label"`
		LeaderLabelValue string            `json:"leader_label_value"`
		Labels           map[string]string `json:"labels"`
		Ports            []struct {
			Name string `json:"name"`
			Port int32  `json:"port"`
		} `json:"ports"`
	} `json:"kubernetes"`
	Restapi struct {
		Listen string `json:"listen"`
	} `json:"restapi"`
	Bootstrap struct {
		DCS struct {
			TTL                  int            `json:"ttl"`
			LoopWait             int            `json:"loop_wait"`
			RetryTimeout         int            `json:"retry_timeout"`
			MaximumLagOnFailover int            `json:"maximum_lag_on_failover"`
			Postgresql           map[string]any `json:"postgresql"`
		} `json:"dcs"`
		Initdb []any `json:"initdb"`
	} `json:"bootstrap"`
	Postgresql struct {
		hookConfig     `json:",inline"`
		Listen         string            `json:"listen"`
		BinDir         string            `json:"bin_dir"`
		DataDir        string            `json:"data_dir"`
		Pgpass         string            `json:"pgpass"`
		UseUnixSocket  bool              `json:"use_unix_socket"`
		Parameters     map[string]string `json:"parameters"`
		Authentication map[string]struct {
			Username string `json:"username"`
		} `json:"authentication"`
		PgHBA []string `json:"pg_hba"`
	} `json:"postgresql"`
}

func (b *built) patroniConfig(t *testing.T) patroniConfig {
	t.Helper()
	var c patroniConfig
	unmarshalStrict(t, "patroni.yml", []byte(b.configMaps["patroni"].Data["patroni.yml"]), &c)
	return c
}

// installFolder is the folder that the init container fills, as the container of Patroni sees it.
func installFolder(t *testing.T, p pod, c corev1.Container) string {
	t.Helper()
	for _, init := range p.spec.InitContainers {
		if len(init.Command) > 0 || len(init.Args) != 2 || init.Args[0] != "install" { // the program is the image's
			continue
		}
		for _, m := range init.VolumeMounts {
			if m.MountPath != init.Args[1] {
				continue
			}
			if v := volume(p, m.Name); m.ReadOnly || v == nil || v.EmptyDir == nil {
				t.Errorf("%s cannot write into %s", init.Name, m.MountPath)
			}
			for _, seen := range c.VolumeMounts {
				if seen.Name == m.Name {
					return seen.MountPath
				}
			}
		}
	}
	t.Fatal("no init container fills a folder that Patroni's container has")
	return ""
}

// installed are the links that `pgbaton install` makes beside the binary.
var installed = []string{"before_stop", "on_role_change", "reload"}

func TestInstall(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "cmd", "pgbaton")); err != nil {
		t.Skip("no cmd/pgbaton yet: nothing to install")
	}
	program := filepath.Join(t.TempDir(), "pgbaton")
	cmd := exec.Command("go", "build", "-o", program, "./cmd/pgbaton")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	folder := t.TempDir()
	if out, err := exec.Command(program, "install", folder).CombinedOutput(); err != nil {
		t.Fatalf("pgbaton install: %v\n%s", err, out)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var links []string
	for _, e := range entries {
		if e.Type()&os.ModeSymlink != 0 {
			links = append(links, e.Name())
		}
	}
	slices.Sort(links)
	if !slices.Equal(links, installed) {
		t.Errorf("pgbaton install made %v, want %v", links, installed)
	}
}

const configFile = "/etc/pgbaton/pgbaton.yaml" // where pgbaton looks without being told

func TestConfiguration(t *testing.T) {
	for _, name := range clusters {
		t.Run(name, func(t *testing.T) {
			b := build(t, name)
			p, c := b.patroni(t)
			if present, _ := b.provides(p, c, configFile); !present {
				t.Fatalf("%s will not be there", configFile)
			}
			loaded := b.load(t, p, c)

			if len(loaded.Poolers) != 1 {
				t.Fatalf("%d poolers", len(loaded.Poolers))
			}
			pooler := loaded.Poolers[0]
			dsn := parse(t, pooler.DSN)
			poolerPod, poolerContainer := b.pooler(t)
			service := b.services[dsn.Host]
			switch {
			case service == nil:
				t.Errorf("no Service %q", dsn.Host)
			case service.Spec.ClusterIP != corev1.ClusterIPNone || !service.Spec.PublishNotReadyAddresses:
				t.Errorf("Service %s does not resolve to every pooler", dsn.Host)
			case !selects(service.Spec.Selector, poolerPod.labels):
				t.Errorf("Service %s does not lead to the poolers", dsn.Host)
			case uint16(poolerContainer.Ports[0].ContainerPort) != dsn.Port: // a headless Service translates no ports
				t.Errorf("the poolers listen on %d, not on %d", poolerContainer.Ports[0].ContainerPort, dsn.Port)
			}
			if pooler.Resolve != "all" || dsn.Database != "pgbouncer" {
				t.Errorf("resolve: %s, database %s", pooler.Resolve, dsn.Database)
			}
			users := string(b.secrets["pgbouncer-users"].Data["userlist.txt"])
			if !strings.Contains(users, `"`+dsn.User+`" "`+pooler.Password+"\"\n") || pooler.Password == "" {
				t.Errorf("userlist.txt has no %s with the password that pgbaton uses", dsn.User)
			}
			if ini := settings(b.configMaps["pgbouncer"].Data["pgbouncer.ini"]); ini["admin_users"] != dsn.User {
				t.Errorf("%s is no admin of PgBouncer (admin_users = %s)", dsn.User, ini["admin_users"])
			}

			for _, file := range []string{pooler.Config, loaded.Versions.PgBouncer.Line, loaded.Serve.TokensFile, loaded.Serve.CertFile,
				loaded.Serve.KeyFile, loaded.Serve.LabelsFile, loaded.Members.TokenFile, loaded.Members.CAFile} {
				if present, _ := b.provides(p, c, file); file != "" && !present {
					t.Errorf("%s will not be there", file)
				}
			}

			route := parse(t, loaded.Resume.Route)
			if !b.isPrimaryService(route.Host) || route.Port != 5432 {
				t.Errorf("the route %s:%d is not the primary's Service", route.Host, route.Port)
			}
			if route.Password == "" || !strings.Contains(users, `"`+route.User+`" "`+route.Password+`"`) {
				t.Errorf("pgpass has no password for %s at %s", route.User, route.Host)
			}
			// A standby makes its replication slot on the new leader, and the poolers' leader is proven from other members.
			if member := parse(t, loaded.Postgres+" host=10.0.0.1"); member.Password != route.Password {
				t.Errorf("pgpass has no password for %s at another member's address", member.User)
			}

			ttl, loopWait := 30*time.Second, 10*time.Second
			switch name {
			case plain:
				dcs := b.patroniConfig(t).Bootstrap.DCS
				ttl, loopWait = time.Duration(dcs.TTL)*time.Second, time.Duration(dcs.LoopWait)*time.Second
			case spilo:
				ttl, loopWait = time.Duration(
					b.postgresql.Spec.Patroni.TTL,
				)*time.Second, time.Duration(
					b.postgresql.Spec.Patroni.LoopWait,
				)*time.Second
			}
			if loaded.Pause.Budget > ttl-5*time.Second || loopWait >= ttl {
				t.Errorf("budget %v with ttl %v, loop_wait %v", loaded.Pause.Budget, ttl, loopWait)
			}
			if grace := p.spec.TerminationGracePeriodSeconds; !p.partial &&
				time.Duration(*grace)*time.Second < loaded.Pause.ShutdownBudget+90*time.Second {
				t.Errorf("terminationGracePeriodSeconds %d leaves no time for checkpoint, guard and stop", *grace)
			}
		})
	}
}

// load reads the file with pgbaton's own loader, in a folder that stands for the container's.
func (b *built) load(t *testing.T, p pod, c corev1.Container) *config.Config {
	t.Helper()
	text := b.configMaps["pgbaton"].Data["pgbaton.yaml"]
	root := t.TempDir()
	for _, line := range strings.Fields(text) {
		if _, file, ok := strings.Cut(line, "passfile="); ok {
			line = file
		}
		if !strings.HasPrefix(line, "/etc/pgbaton/") {
			continue
		}
		if present, _ := b.provides(p, c, line); !present {
			t.Errorf("%s will not be there", line)
			continue
		}
		content := b.secrets["pgbaton-credentials"].Data[path.Base(line)]
		if err := os.MkdirAll(filepath.Join(root, path.Dir(line)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, line), content, 0o440); err != nil {
			t.Fatal(err)
		}
	}
	if _, writable := b.provides(p, c, "/run/pgbaton/state"); !writable || !strings.Contains(text, "state_dir: /run/pgbaton/state") {
		t.Error("state_dir is no writable folder")
	}
	if err := os.MkdirAll(filepath.Join(root, "run", "pgbaton"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, inside := range []string{"/etc/pgbaton/", "/run/pgbaton/"} {
		text = strings.ReplaceAll(text, inside, root+inside)
	}
	file := filepath.Join(root, "pgbaton.yaml")
	if err := os.WriteFile(file, []byte(text), 0o444); err != nil {
		t.Fatal(err)
	}
	loaded, err := config.Load(config.Options{File: file, LookupEnv: func(string) (string, bool) { return "", false }})
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

func parse(t *testing.T, dsn string) *pgconn.Config {
	t.Helper()
	c, err := pgconn.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPlainPatroni follows the names from patroni.yml to the objects around it.
func TestPlainPatroni(t *testing.T) {
	b := build(t, plain)
	p, c := b.patroni(t)
	pc := b.patroniConfig(t)
	k := pc.Kubernetes

	if !k.UseEndpoints || !b.isPrimaryService(pc.Scope) {
		t.Errorf("scope %q is not the Service whose endpoint Patroni moves", pc.Scope)
	}
	if s := b.services[pc.Scope+"-config"]; s == nil || len(s.Spec.Selector) > 0 {
		t.Errorf("no Service %s-config without a selector", pc.Scope)
	}
	if port := b.services[pc.Scope].Spec.Ports[0]; len(k.Ports) != 1 || k.Ports[0].Name != port.Name || k.Ports[0].Port != port.Port {
		t.Errorf("kubernetes.ports %v do not name the port %q of the Service", k.Ports, port.Name)
	}
	labels := maps.Clone(k.Labels)
	labels[k.ScopeLabel] = pc.Scope
	if !selects(labels, p.labels) {
		t.Errorf("Patroni looks for members with %v, the pods have %v", labels, p.labels)
	}
	if present, _ := b.provides(p, c, c.Command[len(c.Command)-1]); !present {
		t.Errorf("%v: the file will not be there", c.Command)
	}
	for what, dir := range map[string]string{
		"data_dir": pc.Postgresql.DataDir, "pgpass": pc.Postgresql.Pgpass,
		"unix_socket_directories": pc.Postgresql.Parameters["unix_socket_directories"] + "/.s.PGSQL.5432",
	} {
		if _, writable := b.provides(p, c, dir); !writable {
			t.Errorf("%s: %s cannot be written", what, dir)
		}
	}
	loaded := b.load(t, p, c)
	if dir := parse(t, loaded.Postgres).Host; dir != pc.Postgresql.Parameters["unix_socket_directories"] {
		t.Errorf("pgbaton looks for the server in %s", dir)
	}
	if !strings.HasSuffix(loaded.Patroni.URL, pc.Restapi.Listen[strings.LastIndex(pc.Restapi.Listen, ":"):]) {
		t.Errorf("patroni.url %s, Patroni listens on %s", loaded.Patroni.URL, pc.Restapi.Listen)
	}
}

// TestRestart: the operation that is applied by hand, beside the cluster.
func TestRestart(t *testing.T) {
	b := build(t, stackgres)
	text, err := os.ReadFile(filepath.Join(b.dir, stackgres, "restart.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var o sgDbOps
	unmarshalStrict(t, "restart.yaml", text, &o)
	if o.APIVersion != b.sgCluster.APIVersion || o.Kind != "SGDbOps" || o.Spec.SGCluster != b.sgCluster.Name || o.Spec.Op != "restart" {
		t.Errorf("%+v", o)
	}
}
