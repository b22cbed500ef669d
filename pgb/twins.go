package pgb

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgbaton/pgbaton/process"
)

const (
	// twinTimeout bounds how long [OnePerProcess] asks. Whoever has not answered by then is left as it is.
	twinTimeout = time.Second
	// openTimeout is how long it waits for an address that neither answers nor refuses, as where packets of one family get lost. On the
	// loopback interface none does.
	openTimeout = 300 * time.Millisecond
)

// OnePerProcess makes one pooler of the addresses of one process, where a name has both IPv4 and IPv6 addresses, as localhost has on most
// machines: left as they are, the process would be paused twice, and an address at which it does not listen would be a pooler that is
// down. It returns the poolers that are left, in their order, with the consoles open that it has asked.
//
// Two addresses of a name are the same process when one console lists a connection that was made to the other (SHOW CLIENTS). An address
// that refuses is none when a pooler of the same name that has no second address answers in the other family and says that it does not
// listen in this one (listen_addr), and when there are at least as many of those: else it is a pooler of its own that is down, and stays.
// Of loopback addresses the answer is enough, since a second pooler on the same port of this machine would be one that nobody else can
// have put behind that name.
//
// It blocks for 1 s at most, and not at all where no name has addresses of both kinds.
func OnePerProcess(ctx context.Context, poolers []*Pooler) []*Pooler {
	groups := map[string][]*Pooler{}
	var names []string
	for _, p := range poolers {
		if p.behind == "" {
			continue
		}
		if groups[p.behind] == nil {
			names = append(names, p.behind)
		}
		groups[p.behind] = append(groups[p.behind], p)
	}
	ctx, cancel := context.WithTimeout(ctx, twinTimeout)
	defer cancel()
	dropped := map[*Pooler]bool{}
	for _, name := range names {
		group := groups[name]
		if len(group) == 1 && group[0].second != nil {
			group[0].preferAnswering(ctx)
			continue
		}
		one := twins{group: group}
		for _, p := range group {
			one.families[p.family()]++
		}
		if one.families[0] > 0 && one.families[1] > 0 {
			for _, p := range one.settle(ctx) {
				dropped[p] = true
				p.Close()
			}
		}
	}
	var left []*Pooler
	for _, p := range poolers {
		if !dropped[p] {
			left = append(left, p)
		}
	}
	return left
}

// family is 0 for IPv4 and 1 for IPv6.
func (p *Pooler) family() int {
	if ip := net.ParseIP(p.config.Host); ip != nil && ip.To4() == nil {
		return 1
	}
	return 0
}

// preferAnswering goes to the address of the other family where the first one refuses and that one does not.
func (p *Pooler) preferAnswering(ctx context.Context) {
	if err := p.Open(ctx); !refuses(err) {
		return
	}
	if p.second.Open(ctx) == nil {
		p.Name, p.config, p.work = p.second.Name, p.second.config, p.second.work
	}
}

// refuses: nobody listens there, or this machine has no way to addresses of that kind.
func refuses(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || noSuchFamily(err)
}

func noSuchFamily(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EAFNOSUPPORT)
}

// twins are the addresses behind one name.
type twins struct {
	group    []*Pooler
	families [2]int
}

// settle returns those that are no poolers of their own.
func (t *twins) settle(ctx context.Context) (dropped []*Pooler) {
	loopback, noFamily := true, [2]bool{}
	for _, p := range t.group {
		loopback = loopback && net.ParseIP(p.config.Host).IsLoopback()
	}
	opening := ctx
	if !loopback {
		var cancel context.CancelFunc
		opening, cancel = context.WithTimeout(ctx, openTimeout)
		defer cancel()
	}
	errs := Each(t.group, func(p *Pooler) error { return p.Open(opening) })
	var answers, refused [2][]*Pooler
	for i, p := range t.group {
		f := p.family()
		switch {
		case errs[i] == nil:
			answers[f] = append(answers[f], p)
		case refuses(errs[i]):
			refused[f] = append(refused[f], p)
			noFamily[f] = noFamily[f] || noSuchFamily(errs[i])
		}
	}
	single := answers // without a twin
	for _, x := range answers[0] {
		for _, y := range answers[1] {
			if !contains(single[0], x) || !contains(single[1], y) || !sameProcess(ctx, x, y) {
				continue
			}
			single[0], single[1] = without(single[0], x), without(single[1], y)
			x.merge(y)
			dropped = append(dropped, y)
		}
	}
	for f := range refused {
		twinless := 0
		for _, p := range single[1-f] {
			if loopback || noFamily[f] || !p.listensIn(ctx, f) {
				twinless++
			}
		}
		if twinless >= len(refused[f]) {
			dropped = append(dropped, refused[f]...)
		}
	}
	return dropped
}

func contains(list []*Pooler, p *Pooler) bool { return len(without(list, p)) < len(list) }

func without(list []*Pooler, p *Pooler) []*Pooler {
	var left []*Pooler
	for _, x := range list {
		if x != p {
			left = append(left, x)
		}
	}
	return left
}

// sameProcess asks the console of y for a connection that is made to x for the purpose. It is found by a name that nobody else knows,
// whatever forwards connections in between.
func sameProcess(ctx context.Context, x, y *Pooler) bool {
	tag := "pgbaton-" + strings.ToLower(rand.Text())
	c, err := connectAs(ctx, x.Name, x.config, tag)
	if err != nil {
		return false
	}
	defer c.Close()
	n, err := y.clientsOf(ctx, tag)
	return err == nil && n > 0
}

// manyConnections is how often [Pooler.OneProcess] connects: of two processes that share a port, one gets all of them once in 30,000
// times.
const manyConnections = 16

// OneProcess reports whether one process answers at the console's address: with so_reuseport several may, and each of them has settings
// and pauses of its own. On this machine the kernel tells how many listen (see [process.Listeners]); of another one, connections that are
// made for the purpose must all be of the process that the console is of (SHOW CLIENTS). It blocks until the console has answered or the
// context ends.
func (p *Pooler) OneProcess(ctx context.Context) (bool, error) {
	if p.config == nil || strings.HasPrefix(p.config.Host, "/") || strings.HasPrefix(p.config.Host, "@") {
		return true, nil // a socket's path is one process's
	}
	if address, err := netip.ParseAddr(p.config.Host); err == nil && p.Local() {
		if n, err := process.Listeners(netip.AddrPortFrom(address, p.config.Port)); err == nil && n > 0 {
			return n == 1, nil
		}
	}
	// Its own console first: it may have to be connected anew.
	if _, err := p.console(ctx); err != nil {
		return false, err
	}
	tag := "pgbaton-" + strings.ToLower(rand.Text())
	connections := make([]*Console, manyConnections)
	defer func() {
		for _, c := range connections {
			if c != nil {
				c.Close()
			}
		}
	}()
	for i := range connections {
		c, err := connectAs(ctx, p.Name, p.config, tag)
		if err != nil {
			return false, err
		}
		connections[i] = c
	}
	n, err := p.clientsOf(ctx, tag)
	return n == manyConnections, err
}

// clientsOf counts the connections of an application to the console's process.
func (p *Pooler) clientsOf(ctx context.Context, application string) (int, error) {
	clients, err := p.exec(ctx, "SHOW CLIENTS")
	if err != nil {
		return 0, err
	}
	n := 0
	for row := range clients.Rows {
		// application_name_add_host puts the client's address behind it.
		if strings.HasPrefix(clients.Get(row, "application_name"), application) {
			n++
		}
	}
	return n, nil
}

// listensIn reports whether the pooler says that it listens in a family; also where it does not say.
func (p *Pooler) listensIn(ctx context.Context, family int) bool {
	result, err := p.exec(ctx, "SHOW CONFIG")
	if err != nil {
		return true
	}
	for row := range result.Rows {
		if result.Get(row, "key") != "listen_addr" {
			continue
		}
		for address := range strings.SplitSeq(result.Get(row, "value"), ",") {
			address = strings.TrimSpace(address)
			ip := net.ParseIP(address)
			if address != "" && (ip == nil || (ip.To4() == nil) == (family == 1)) {
				return true // a name may be both, and "*" is
			}
		}
		return false
	}
	return true
}

// behindName is what addresses have in common that may be one process: the name and the port.
func behindName(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}
