package health

import (
	"context"
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/follow"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/postgres"
	"github.com/pgbaton/pgbaton/process"
)

const (
	// checkTimeout bounds a whole preflight.
	checkTimeout = 4 * time.Second
	// reapTimeout is how long whoever has inherited a process may take to reap it. An init needs less than a millisecond.
	reapTimeout = 500 * time.Millisecond
)

// lookFurther asks everybody at once and blocks until all have answered, or ctx is done.
func lookFurther(ctx context.Context, m *member.Member) *further {
	f := &further{poolers: map[string]poolerFurther{}, resolved: map[string][]string{}}
	var all sync.WaitGroup
	if !m.Config.Apart() { // else nobody runs hooks here
		all.Go(func() { f.hooks.local, f.hooks.err = lookAtHooks(m) })
		all.Go(func() { f.init, f.own = lookAtServer(ctx, m) })
	}
	all.Go(func() { f.files = lookAtFiles(m) })
	var inCluster, atPoolers map[string][]string
	all.Go(func() { inCluster = f.lookAtCluster(ctx, m) })
	all.Go(func() { f.poolers, atPoolers = lookAtPoolers(ctx, m) })
	if dsn := m.Config.Resume.Route; dsn != "" {
		all.Go(func() {
			f.route = &routeView{address: "resume.route"}
			server, err := postgres.Open(dsn)
			if err == nil {
				f.route.identity, err = member.Identify(ctx, server.Once())
			}
			f.route.err = err
		})
	}
	all.Wait()
	maps.Copy(f.resolved, inCluster)
	maps.Copy(f.resolved, atPoolers)
	return f
}

// lookAtHooks reads what Patroni's local configuration says: the file or folder of patroni.config, or else what Patroni was started with.
func lookAtHooks(m *member.Member) (config.PatroniHooks, error) {
	const whole = "PATRONI_CONFIGURATION" // where there is no file, this counts
	path := m.Config.Patroni.Config
	if path == "" {
		process, err := patroni.FindProcess("")
		if err != nil {
			return config.PatroniHooks{}, err
		}
		defer process.Close()
		path, err = process.ConfigPath()
		if errors.Is(err, os.ErrNotExist) {
			path, err = config.PatroniEnvironment, nil
		}
		if err != nil {
			return config.PatroniHooks{}, err
		}
	}
	if path == config.PatroniEnvironment {
		variables := patroni.Environ("")
		if variables == nil {
			return config.PatroniHooks{}, errors.New("the variables that Patroni was started with cannot be seen")
		}
		// The other variables have no place for hooks.
		return config.ParsePatroniHooks(whole, variables[whole])
	}
	return config.ReadPatroniHooks(path)
}

// programs looks at the programs of hooks. A path that is not absolute is Patroni's to find.
func programs(hooks config.PatroniHooks) map[string]programView {
	seen := map[string]programView{}
	look := func(command string) {
		path, _, _ := strings.Cut(strings.TrimSpace(command), " ")
		if !filepath.IsAbs(path) || strings.ContainsAny(path, `'"\`) {
			return
		}
		seen[path] = lookAtProgram(path)
	}
	look(hooks.BeforeStop)
	for _, event := range callbacks() {
		look(hooks.Callbacks[event])
	}
	return seen
}

func lookAtProgram(path string) programView {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return programView{problem: "there is no such file"}
	case err != nil:
		return programView{} // it cannot be told from here
	case !info.Mode().IsRegular():
		return programView{problem: "it is no program"}
	case info.Mode()&0o111 == 0:
		return programView{problem: "it is not executable"}
	}
	self, err := os.Executable()
	if err != nil {
		return programView{}
	}
	own, err := os.Stat(self)
	return programView{other: err == nil && !os.SameFile(info, own)}
}

// lookAtServer looks at the local server, its process and who is above it.
func lookAtServer(ctx context.Context, m *member.Member) (initView, *serverView) {
	var above initView
	own := &serverView{}
	server, err := m.Server()
	var conn *postgres.Conn
	if err == nil {
		conn, err = server.Connect(ctx)
	}
	if err != nil {
		own.err, above.postmasterErr = err, err
		return above, own
	}
	defer conn.Close()
	own.look(ctx, conn)
	postmaster, err := conn.Postmaster(ctx)
	if err != nil {
		above.postmasterErr = err
		return above, own
	}
	pid := postmaster.PID()
	postmaster.Close()
	above.lookAbove(ctx, m, pid)
	return above, own
}

// look fills in what the server says.
func (s *serverView) look(ctx context.Context, conn *postgres.Conn) {
	if s.ready, s.err = conn.Readiness(ctx); s.err != nil {
		return
	}
	s.slots, s.err = conn.Slots(ctx)
	if s.err != nil || s.ready.InRecovery {
		return
	}
	open, err := conn.OpenTransactions(ctx)
	s.transactions, s.hidden = open, errors.Is(err, postgres.ErrHidden)
}

// lookAbove finds the parent of the postmaster, and whether it reaps what it inherits.
func (i *initView) lookAbove(ctx context.Context, m *member.Member, postmaster int) {
	p, err := process.Open(postmaster)
	if err != nil {
		i.postmasterErr = err
		return
	}
	i.above, err = p.Parent()
	p.Close()
	if err != nil {
		i.postmasterErr = err
		return
	}
	if parent, err := process.Open(i.above); err == nil {
		i.name, _ = parent.Name()
		parent.Close()
	}
	if adoption, err := process.TryAdoption(ctx, reapTimeout, m.Self, member.OrphanCommand); err == nil {
		i.adopts, i.zombie = adoption.By, adoption.Zombie
	} else {
		m.Log.Debug("who reaps cannot be told", "error", err)
	}
}

// lookAtCluster asks Patroni for the members, and each other one's Patroni and server. It returns the addresses of their hosts.
func (f *further) lookAtCluster(ctx context.Context, m *member.Member) map[string][]string {
	asking, cancel := context.WithTimeout(ctx, member.RestTimeout)
	defer cancel()
	client, health, err := askPatroni(asking, m)
	if err != nil {
		f.unseen = err
		return nil
	}
	cluster, err := client.Cluster(asking)
	if err != nil {
		f.unseen = err
		return nil
	}
	f.cluster = &cluster
	local, localErr := m.Server()
	var lock sync.Mutex
	var all sync.WaitGroup
	resolved, servers, apis := map[string][]string{}, map[string]serverView{}, map[string]apiView{}
	for _, x := range cluster.Members {
		all.Go(func() {
			addresses, _ := net.DefaultResolver.LookupHost(ctx, x.Host)
			lock.Lock()
			defer lock.Unlock()
			resolved[x.Host] = addresses
		})
		if x.Name == health.Name && !m.Config.Apart() {
			continue
		}
		all.Go(func() {
			api := lookAtAPI(ctx, client, x.APIURL)
			lock.Lock()
			defer lock.Unlock()
			apis[x.Name] = api
		})
		if localErr != nil {
			continue
		}
		server, err := member.ServerOf(local, x)
		if err != nil {
			continue
		}
		all.Go(func() {
			s := lookAtMember(ctx, server)
			lock.Lock()
			defer lock.Unlock()
			servers[x.Name] = s
		})
	}
	all.Wait()
	f.members, f.apis = servers, apis
	return resolved
}

// lookAtAPI asks another member's Patroni. The address is what that one has written into the DCS, so it gets no password; a GET needs none.
func lookAtAPI(ctx context.Context, client *patroni.Client, address string) apiView {
	there, err := client.Bare().At(address)
	if err != nil {
		return apiView{err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, member.RestTimeout)
	defer cancel()
	health, err := there.Leader(ctx)
	return apiView{err: err, version: health.Version}
}

func lookAtMember(ctx context.Context, server *postgres.Server) serverView {
	ctx, cancel := context.WithTimeout(ctx, member.StatusTimeout)
	defer cancel()
	conn, err := server.Connect(ctx)
	if err != nil {
		return serverView{err: err}
	}
	defer conn.Close()
	var s serverView
	s.look(ctx, conn)
	return s
}

// lookAtPoolers asks every pooler what a status does not, and looks at the addresses that it connects to.
func lookAtPoolers(ctx context.Context, m *member.Member) (map[string]poolerFurther, map[string][]string) {
	poolers, _, _ := m.Poolers(ctx, nil)
	defer member.CloseAll(poolers)
	ours := m.SelectDatabases(ctx, m.Log, poolers)
	var lock sync.Mutex
	seen, resolved := map[string]poolerFurther{}, map[string][]string{}
	for _, p := range poolers {
		seen[p.Name] = poolerFurther{ours: p.Databases, follow: m.Follow(p)}
	}
	local, localErr := m.Server()
	pgb.Each(ours, func(p *pgb.Pooler) error {
		if !p.HasConsole() {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, member.StatusTimeout)
		defer cancel()
		more := poolerFurther{mayPause: p.MayPause(ctx), ours: p.Databases, follow: m.Follow(p)}
		if m.Moves(p) {
			more.unmovable = follow.Unmovable(ctx, m, p)
		}
		databases, err := p.ShowDatabases(ctx)
		if err != nil {
			return err // the status tells
		}
		more.modes, _ = p.UserPoolModes(ctx) // none is what they have without it, too
		more.peers, _ = p.Peers(ctx)         // the same
		var looking sync.WaitGroup
		if agent := m.AgentURL(p); agent != "" {
			more.agent = agent
			looking.Go(func() { more.routes, more.agentErr = askAgent(ctx, m, p) })
		} else if localErr == nil {
			looking.Go(func() {
				for _, lead := range member.Leads(ctx, p, databases, local) {
					more.routes = append(more.routes, routeOf(ctx, local, lead))
				}
			})
		}
		if localErr == nil {
			for _, to := range member.Destinations(p, databases, false) {
				looking.Go(func() {
					addresses, _ := net.DefaultResolver.LookupHost(ctx, to.Host)
					lock.Lock()
					defer lock.Unlock()
					resolved[to.Host] = addresses
				})
			}
		}
		if one, err := p.OneProcess(ctx); err == nil {
			more.several = !one
		}
		looking.Wait()
		lock.Lock()
		defer lock.Unlock()
		seen[p.Name] = more
		return nil
	})
	return seen, resolved
}

// lookAtFiles looks at who may change what the hooks go by, and read their secrets.
func lookAtFiles(m *member.Member) []fileView {
	var seen []fileView
	look := func(path string, secret bool) {
		if path == "" || slices.ContainsFunc(seen, func(f fileView) bool { return f.path == path }) {
			return
		}
		info, err := os.Stat(path)
		if err != nil {
			return // who needs it has told
		}
		if problem := file.Permissions(info, secret); problem != "" {
			seen = append(seen, fileView{path, problem})
		}
	}
	self, _ := os.Executable()
	look(self, false)
	look(m.Config.File, false)
	for _, p := range m.Config.Poolers {
		look(p.PasswordFile, true)
	}
	look(m.Config.Patroni.PasswordFile, true)
	look(m.Config.Patroni.KeyFile, true)
	look(m.Config.Serve.TokensFile, true)
	look(m.Config.Serve.KeyFile, true)
	look(m.Config.Members.TokenFile, true)
	look(m.Config.Members.KeyFile, true)
	return seen
}
