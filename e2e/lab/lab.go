package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pgbaton/pgbaton/e2e/labroot"
)

// RouteKind is how the read-write route follows the leader.
type RouteKind int

const (
	// RouteService moves as soon as the leader key does, as the endpoint of a Kubernetes Service that
	// Patroni writes: established connections stay where they are.
	RouteService RouteKind = iota
	// RouteHAProxy is HAProxy that asks every member's GET /primary ([Options.HAProxyCheck]).
	RouteHAProxy
)

// Options says what the lab shall be. The zero value is three members of trixie with Patroni's default
// times, a Service route, one PgBouncer and no hooks.
type Options struct {
	Suite   string // "trixie" (default) or "sid"
	Root    string // the suite's root; default: what scripts/lab-root.sh makes
	Members int    // default 3

	TTL, LoopWait, RetryTimeout time.Duration // whole seconds; default 30, 10, 10: see [Options.Quick]
	SynchronousMode             bool
	Parameters                  map[string]string         // PostgreSQL, over the lab's own
	Tags                        map[string]map[string]any // member's name to Patroni tags
	Patroni                     func(m *Member, config map[string]any)
	// Young is a cluster that is seconds old: the replicas come when the leader is there, and Start returns when every member says of
	// itself that it runs, whether replicas stream or not. (Their replication slots are made in the leader's next loop.)
	Young bool

	Route        RouteKind
	RouteDelay   time.Duration // RouteService: the route moves so much later than the leader key
	HAProxyCheck string        // RouteHAProxy: default "inter 1s fall 1 rise 1 on-marked-down shutdown-sessions"

	Poolers            int               // default 1
	PgBouncer          map[string]string // settings over the lab's own; an empty value leaves the setting out
	PgBouncerDatabases string            // the [databases] section; default "* = host=cluster port=5432"
	// Beside: the poolers stand on the members, one on each, and lead to the member's own socket. Clients come through an HAProxy in front
	// of them, which asks pgbaton serve where to go: see [Lab.Front]. Front makes its configuration, without the defaults.
	Beside bool
	Front  func(*Lab) string
	// BesideFiles are what lies in the poolers' /etc/pgbouncer with Beside, by name; default [DatabasesFile].
	BesideFiles map[string]string
	// Apart: the poolers' machines have pgbaton, too (/callbacks), and the user postgres may write in /etc/pgbouncer. The entries stand in
	// [DatabasesFile], and lead to the route at first.
	Apart bool

	// Systemd: process 1 of each member is systemd, and Patroni is Debian's patroni.service. Sid only: trixie's root has no systemd.
	// [Member.Term] and [Member.KillPatroni] are not for it.
	Systemd bool

	Callbacks  string            // host directory, seen read-only as /callbacks in every member
	BeforeStop string            // postgresql.before_stop
	Callback   string            // postgresql.callbacks.{on_role_change,on_start,on_restart,on_stop}
	Env        map[string]string // more environment for Patroni, and so for the hooks

	PgbenchScale int // pgbench -i -s; default 4
	PgbenchRate  int // pgbench -R, transactions per second of each pgbench; 0: as many as the machine can

	// Prepare is called when addresses and passwords are known and nothing has started yet: the moment to
	// write configuration into Callbacks.
	Prepare func(*Lab) error
	// LogDir keeps the logs there (it must exist); otherwise they go with the lab.
	LogDir string
	// Logf gets a line for each step of the start.
	Logf func(format string, args ...any)
}

// Quick returns o with the shortest times that Patroni accepts: ttl 20, loop_wait 1, retry_timeout 3.
func (o Options) Quick() Options {
	o.TTL, o.LoopWait, o.RetryTimeout = 20*time.Second, time.Second, 3*time.Second
	return o
}

func (o *Options) setDefaults() error {
	if o.Suite == "" {
		o.Suite = "trixie"
	}
	if o.Members == 0 {
		o.Members = 3
	}
	if o.TTL == 0 {
		o.TTL = 30 * time.Second
	}
	if o.LoopWait == 0 {
		o.LoopWait = 10 * time.Second
	}
	if o.RetryTimeout == 0 {
		o.RetryTimeout = 10 * time.Second
	}
	if o.HAProxyCheck == "" {
		o.HAProxyCheck = "inter 1s fall 1 rise 1 on-marked-down shutdown-sessions"
	}
	if o.Beside {
		o.Poolers = o.Members
		if o.PgBouncerDatabases == "" {
			o.PgBouncerDatabases = "%include " + DatabasesFile
			o.BesideFiles = map[string]string{filepath.Base(DatabasesFile): localEntries}
		}
	}
	if o.Apart {
		o.PgBouncerDatabases = "%include " + DatabasesFile
	}
	if o.Poolers == 0 {
		o.Poolers = 1
	}
	if o.PgBouncerDatabases == "" {
		o.PgBouncerDatabases = "* = host=cluster port=5432"
	}
	if o.PgbenchScale == 0 {
		o.PgbenchScale = 4
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	if o.Members < 1 || o.Members > 9 || o.Poolers < 0 || o.Poolers > 9 {
		return fmt.Errorf("lab: %d members and %d poolers: at most 9 of each", o.Members, o.Poolers)
	}
	if o.Callbacks != "" {
		info, err := os.Stat(o.Callbacks)
		if err != nil {
			return fmt.Errorf("lab: Callbacks: %w", err)
		}
		if info.Mode().Perm()&0o005 != 0o005 {
			return fmt.Errorf("lab: Callbacks: %s is closed to others (%v); PostgreSQL's user must read it", o.Callbacks, info.Mode())
		}
	}
	return nil
}

// Lab is a running cluster with its poolers and its route.
type Lab struct {
	Scope             string
	SuperuserPassword string // of postgres
	AdminPassword     string // of pgbouncer_admin and pgbouncer_stats

	opts     Options
	n        int
	lock     *os.File
	dir      string // the tmpfs
	logDir   string
	members  []*Member
	poolers  []*Pooler
	route    *Route
	front    *container // see Options.Beside
	etcd     etcd
	etcdProc *container
	uid, gid int // of postgres, in the suite's root
	rest     *http.Client

	loadOnce sync.Once
	loadErr  error
	runs     sync.Mutex
	nextRun  int
	loads    []*container
}

// Start makes a lab and returns when it is healthy ([Lab.WaitHealthy]). It must run as root. On an
// error nothing is left.
func Start(ctx context.Context, opts Options) (*Lab, error) {
	if err := opts.setDefaults(); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("lab: must be root (it makes namespaces and mounts)")
	}
	if opts.Root == "" {
		root, err := labroot.Of(ctx, opts.Suite)
		if err != nil {
			return nil, err
		}
		opts.Root = root
	}
	l := &Lab{
		Scope:             "demo",
		SuperuserPassword: randomWord(),
		AdminPassword:     randomWord(),
		opts:              opts,
		rest:              &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	}
	if err := l.start(ctx); err != nil {
		err = fmt.Errorf("lab: %w", err)
		if l.lock != nil {
			err = errors.Join(err, l.Close())
		}
		return nil, err
	}
	return l, nil
}

func (l *Lab) start(ctx context.Context) error {
	begin := time.Now()
	say := func(format string, args ...any) {
		l.opts.Logf("%5.1f s  "+format, append([]any{time.Since(begin).Seconds()}, args...)...)
	}
	var err error
	if l.uid, l.gid, err = labroot.User(l.opts.Root, "postgres"); err != nil {
		return err
	}
	if err := l.claim(); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", l.dir, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", l.dir, err)
	}
	l.logDir = filepath.Join(l.dir, "log")
	if l.opts.LogDir != "" {
		if l.logDir, err = filepath.Abs(l.opts.LogDir); err != nil {
			return err
		}
	}
	for i := range l.opts.Members {
		l.members = append(l.members, &Member{Name: fmt.Sprintf("m%d", i+1), Address: l.address(11 + i), lab: l, index: i})
	}
	for i := range l.opts.Poolers {
		l.poolers = append(l.poolers, &Pooler{Name: fmt.Sprintf("p%d", i+1), Address: l.address(21 + i), lab: l})
	}
	if l.opts.Prepare != nil {
		if err := l.opts.Prepare(l); err != nil {
			return err
		}
	}
	if l.opts.Beside {
		if err := l.prepareBeside(); err != nil {
			return err
		}
	}

	if err := l.startEtcd(ctx); err != nil {
		return err
	}
	say("etcd answers")
	if l.route, err = l.startRoute(ctx); err != nil {
		return err
	}
	// m1 first, so that it is the one that bootstraps.
	if err := l.members[0].create(); err != nil {
		return err
	}
	if err := Until(ctx, 20*time.Millisecond, "m1 to bootstrap", func(ctx context.Context) error {
		if !l.members[0].Running() {
			return fmt.Errorf("m1 has ended: %s", l.lastOutput("m1"))
		}
		exists, err := l.etcd.exists(ctx, l.key("initialize"))
		if err == nil && !exists {
			err = errors.New("it has not begun")
		}
		return err
	}); err != nil {
		return err
	}
	if l.opts.Young { // m1 makes slots for those that are there in its first loop; the next one is loop_wait later
		if _, err := l.WaitLeader(ctx, nil); err != nil {
			return err
		}
		if err := l.prepareLoad(ctx); err != nil { // it takes seconds, in which the cluster would grow older
			return err
		}
	}
	var starts []func() error
	for _, m := range l.members[1:] {
		starts = append(starts, func() error { return m.create() })
	}
	for _, p := range l.poolers {
		starts = append(starts, func() error { return p.create() })
	}
	if err := parallel(starts...); err != nil {
		return err
	}
	if l.opts.Young {
		return l.waitRunning(ctx)
	}
	if err := l.WaitHealthy(ctx); err != nil {
		return err
	}
	if l.opts.Beside {
		if err := l.startFront(); err != nil {
			return err
		}
	}
	say("cluster and poolers are healthy")
	// The cluster was bootstrapped with the shortest loop_wait: members that wait for the bootstrap
	// look once in a loop_wait.
	if l.opts.LoopWait != time.Second || l.opts.RetryTimeout != 3*time.Second {
		if err := l.settle(ctx); err != nil {
			return err
		}
		say("times set")
	}
	return nil
}

// settle sets the times that the options ask for, and waits until every member goes by them.
func (l *Lab) settle(ctx context.Context) error {
	leader, err := l.Leader(ctx)
	if err != nil {
		return err
	}
	before := make([]int, len(l.members))
	for i, m := range l.members {
		before[i] = countReloads(m.LogFile("patroni.log"))
	}
	status, body, err := leader.REST(ctx, http.MethodPatch, "/config", map[string]any{
		"loop_wait": int(l.opts.LoopWait.Seconds()), "retry_timeout": int(l.opts.RetryTimeout.Seconds())})
	if err != nil || status != http.StatusOK {
		return fmt.Errorf("PATCH /config: %d %s: %v", status, body, err)
	}
	return Until(ctx, 50*time.Millisecond, "all members to read the new times", func(context.Context) error {
		for i, m := range l.members {
			if countReloads(m.LogFile("patroni.log")) <= before[i] {
				return fmt.Errorf("%s has not read them yet", m.Name)
			}
		}
		return nil
	})
}

// Close ends every process of the lab and removes its files, except a LogDir of the caller's.
func (l *Lab) Close() error {
	if l.route != nil {
		l.route.stopFollowing()
	}
	var kills []func() error
	for _, m := range l.members {
		kills = append(kills, func() error {
			if c := m.container(); c != nil {
				c.kill()
			}
			if m.proxy != nil {
				m.proxy.close()
			}
			return nil
		})
	}
	for _, p := range l.poolers {
		kills = append(kills, func() error {
			if c := p.container(); c != nil {
				c.kill()
			}
			return nil
		})
	}
	for _, c := range l.loads {
		kills = append(kills, func() error { c.kill(); return nil })
	}
	parallel(kills...)
	if l.route != nil && l.route.c != nil {
		l.route.c.kill()
	}
	if l.front != nil {
		l.front.kill()
	}
	if l.etcdProc != nil {
		l.etcdProc.kill()
	}
	l.rest.CloseIdleConnections()
	if l.etcd.client != nil {
		l.etcd.client.CloseIdleConnections()
	}
	err := errors.Join(clearDir(l.dir), clearCgroups(l.n))
	// The name goes while the lock is still held: nobody can have locked it since.
	os.Remove(l.lock.Name())
	l.lock.Close()
	return err
}

// Members returns all members, running or not.
func (l *Lab) Members() []*Member { return l.members }

// Member returns the member with that name, or nil.
func (l *Lab) Member(name string) *Member {
	for _, m := range l.members {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// Poolers returns all poolers, running or not.
func (l *Lab) Poolers() []*Pooler { return l.poolers }

// Pooler returns the first pooler.
func (l *Lab) Pooler() *Pooler { return l.poolers[0] }

// Route returns the read-write route.
func (l *Lab) Route() *Route { return l.route }

// Options returns what the lab was made from, with the defaults filled in.
func (l *Lab) Options() Options { return l.opts }

// LogDir is where all logs are.
func (l *Lab) LogDir() string { return l.logDir }

// address is the lab's own address that ends in host.
func (l *Lab) address(host int) string { return fmt.Sprintf("127.77.%d.%d", l.n, host) }

// hosts is the /etc/hosts that everything in the lab sees.
func (l *Lab) hosts() string {
	var b strings.Builder
	fmt.Fprintf(&b, "127.0.0.1 localhost\n%s etcd\n%s cluster\n", l.address(1), l.address(5))
	for _, m := range l.members {
		fmt.Fprintf(&b, "%s %s\n", m.Address, m.Name)
	}
	for _, p := range l.poolers {
		fmt.Fprintf(&b, "%s %s\n%s pgbouncer pgbouncers\n", p.Address, p.Name, p.Address)
	}
	return b.String()
}

// WriteSecret makes a file that only the servers' user can read, as libpq wants a password file. An old one is replaced.
func (l *Lab) WriteSecret(path, content string) error {
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	return errors.Join(os.Chmod(path, 0o600), os.Chown(path, l.uid, l.gid))
}

// pgpass has every password of the lab.
func (l *Lab) pgpass() string {
	return fmt.Sprintf("*:*:*:pgbouncer_admin:%s\n*:*:*:pgbouncer_stats:%s\n*:*:*:postgres:%s\n",
		l.AdminPassword, l.AdminPassword, l.SuperuserPassword)
}

// container prepares a container: its directories, name resolution and log file.
func (l *Lab) container(name string) (containerSpec, error) {
	s := containerSpec{
		name:   name,
		lower:  l.opts.Root,
		dir:    filepath.Join(l.dir, name),
		output: filepath.Join(l.logDir, name+".output.log"),
		tmpfs: []tmpfs{{"/run", 0o755, 0, 0}, {"/tmp", 0o1777, 0, 0},
			{"/run/postgresql", 0o755, l.uid, l.gid}, {"/run/pgbouncer", 0o755, l.uid, l.gid}, {"/run/pgbaton", 0o700, l.uid, l.gid}},
		env: map[string]string{"PATH": "/usr/local/pgbin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"HOME": "/var/lib/postgresql", "LANG": "C.UTF-8", "TZ": "UTC", "HOSTNAME": name, "PYTHONUNBUFFERED": "1"},
	}
	logs := filepath.Join(l.logDir, name)
	s.binds = []bind{{logs, "/var/log/lab", false}}
	for _, d := range []string{logs, filepath.Join(s.dir, "upper/etc"), filepath.Join(s.dir, "upper/var/lib/postgresql")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return s, err
		}
	}
	home := filepath.Join(s.dir, "upper/var/lib/postgresql")
	pgpass := filepath.Join(home, ".pgpass")
	return s, errors.Join(
		os.Chown(logs, l.uid, l.gid),
		os.Chown(home, l.uid, l.gid),
		os.WriteFile(filepath.Join(s.dir, "upper/etc/hosts"), []byte(l.hosts()), 0o644),
		os.WriteFile(filepath.Join(s.dir, "upper/etc/hostname"), []byte(name+"\n"), 0o644),
		os.WriteFile(filepath.Join(s.dir, "upper/etc/resolv.conf"), nil, 0o644),
		os.WriteFile(pgpass, []byte(l.pgpass()), 0o600),
		os.Chown(pgpass, l.uid, l.gid),
	)
}

// asPostgres runs argv as the user postgres, with nothing between. A change of user clears the signal
// that a process gets when its parent dies, so it is set once more.
func asPostgres(argv ...string) []string {
	return append([]string{"setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig=KILL", "--"}, argv...)
}

func (l *Lab) startEtcd(ctx context.Context) error {
	s, err := l.container("etcd")
	if err != nil {
		return err
	}
	client, peer := "http://"+l.address(1)+":2379", "http://"+l.address(1)+":2380"
	s.argv = []string{"etcd", "--name", "etcd", "--data-dir", "/var/tmp/etcd", "--unsafe-no-fsync",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "etcd=" + peer}
	if l.etcdProc, err = s.start(); err != nil {
		return err
	}
	l.etcd = etcd{url: client, client: &http.Client{Transport: &http.Transport{}}}
	return Until(ctx, 20*time.Millisecond, "etcd", func(ctx context.Context) error {
		if !l.etcdProc.running() {
			return fmt.Errorf("etcd has ended: %s", l.lastOutput("etcd"))
		}
		_, _, err := l.etcd.get(ctx, l.key("leader"))
		return err
	})
}

// key is the name of one of the cluster's keys in etcd.
func (l *Lab) key(name string) string { return "/service/" + l.Scope + "/" + name }

// lastOutput is the end of what a server has written to its terminal.
func (l *Lab) lastOutput(name string) string {
	content, _ := os.ReadFile(filepath.Join(l.logDir, name+".output.log"))
	if len(content) > 1000 {
		content = content[len(content)-1000:]
	}
	return strings.TrimSpace(string(content))
}

// labDir is where roots and running labs are: the same place that scripts/lab-root.sh uses.
func labDir() string {
	if d := os.Getenv("PGBATON_LAB_DIR"); d != "" {
		return d
	}
	return "/var/lib/pgbaton-lab"
}

// claim takes a free number and its directory, and removes what labs have left whose owner is dead.
func (l *Lab) claim() error {
	run := filepath.Join(labDir(), "run")
	if err := os.MkdirAll(run, 0o755); err != nil {
		return err
	}
	for n := 1; n <= 250; n++ {
		dir := filepath.Join(run, strconv.Itoa(n))
		_, statErr := os.Stat(dir)
		if l.lock != nil && statErr != nil {
			continue // nothing to sweep there
		}
		lock, err := tryLock(dir + ".lock")
		if err != nil {
			return err
		}
		if lock == nil {
			continue
		}
		if err := errors.Join(clearDir(dir), clearCgroups(n)); err != nil {
			lock.Close()
			return err
		}
		if l.lock != nil {
			os.Remove(lock.Name())
			lock.Close()
			continue
		}
		l.lock, l.n, l.dir = lock, n, dir
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if l.lock == nil {
		return errors.New("250 labs are running")
	}
	return nil
}

// tryLock locks the file, or returns nil where somebody else has it.
func tryLock(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, nil
			}
			return nil, err
		}
		// The owner before us may have removed the name between our open and our lock.
		held, err1 := f.Stat()
		named, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(held, named) {
			return f, nil
		}
		f.Close()
	}
}

// clearDir unmounts and removes a lab's directory.
func clearDir(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for {
		err := syscall.Unmount(dir, syscall.MNT_DETACH)
		if errors.Is(err, syscall.EINVAL) {
			break // no mount (any more)
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
	return os.RemoveAll(dir)
}

func randomWord() string {
	b := make([]byte, 12)
	rand.Read(b)
	return hex.EncodeToString(b)
}
