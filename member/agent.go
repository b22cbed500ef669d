package member

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/pgb"
)

const (
	maxToken  = 4 << 10 // bytes
	dialServe = 2 * time.Second
)

// Agent is a client of the serve that stands beside a pooler and looks at its route from there; nil where none is set. done lets go of its
// connections. It does not connect; the error is the configuration's.
func (m *Member) Agent(p *pgb.Pooler) (_ *api.Client, done func(), err error) {
	address := m.AgentURL(p)
	if address == "" {
		return nil, nil, nil
	}
	return ServeClient(m.Config.Members, address)
}

// AgentURL is where that serve is; "" where none is set.
func (m *Member) AgentURL(p *pgb.Pooler) string {
	if p.Entry < 0 || p.Entry >= len(m.Config.Poolers) {
		return ""
	}
	return m.Config.Poolers[p.Entry].Agent
}

// ErrNoMembersURL says that it is not known where the other members' serve is.
var ErrNoMembersURL = errors.New("members.url is not set")

// ServeOf is a client of another member's serve; done lets go of its connections. It does not connect.
func ServeOf(c config.Members, x patroni.Member) (_ *api.Client, done func(), err error) {
	if c.URL == "" {
		return nil, nil, ErrNoMembersURL
	}
	client, done, err := ServeClient(c, c.For(x.Name, x.Host))
	if errors.Is(err, ErrServeURL) {
		err = errors.New("no URL of its serve can be made of members.url and what Patroni has as its name and host")
	}
	return client, done, err
}

// ErrServeURL says that an address is none of a pgbaton serve.
var ErrServeURL = errors.New("not a URL of pgbaton serve")

// ServeClient is a client of pgbaton serve elsewhere, with the token, the certificate and the authority of members in the configuration;
// done lets go of its connections. It does not connect. No redirect and no proxy of the environment is given the token.
func ServeClient(c config.Members, address string) (_ *api.Client, done func(), err error) {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
		return nil, nil, ErrServeURL
	}
	t, err := config.ClientTLS(c.CAFile, c.CertFile, c.KeyFile)
	if err != nil {
		return nil, nil, err
	}
	client := &api.Client{URL: address}
	if c.TokenFile != "" {
		if ip := net.ParseIP(u.Hostname()); u.Scheme != "https" && (ip == nil || !ip.IsLoopback()) {
			return nil, nil, errors.New("the token of members.token_file is sent over https only: let the URL begin with it")
		}
		token, err := file.Read(c.TokenFile, maxToken)
		if err != nil {
			return nil, nil, fmt.Errorf("members.token_file: %w", err)
		}
		client.Token = strings.TrimSpace(string(token))
	}
	transport := &http.Transport{TLSClientConfig: t, DialContext: (&net.Dialer{Timeout: dialServe}).DialContext}
	client.HTTP = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	return client, transport.CloseIdleConnections, nil
}
