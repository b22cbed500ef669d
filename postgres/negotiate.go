package postgres

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
)

// toOne resolves any name to one address.
func toOne(ip string) pgconn.LookupFunc {
	return func(context.Context, string) ([]string, error) { return []string{ip}, nil }
}

// inOneConnection makes a configuration with sslmode=prefer do as libpq and PgBouncer do: ask for TLS, and go on without it in the same
// connection when the server has none. pgconn closes the connection and opens a second one. Behind a proxy that hands connections out in
// turn that second one meets another server, and behind one with two servers all of them meet the same.
//
// Where a server with TLS refuses the log-in, libpq tries once more without; that is a connection of its own, and again says whether it
// may be made. It reports whether it is sslmode=prefer. Other settings of sslmode, and sslcertmode=require, are left to pgconn.
func inOneConnection(config *pgconn.Config, again bool) (prefers bool) {
	entries := append([]*pgconn.FallbackConfig{{Host: config.Host, Port: config.Port, TLSConfig: config.TLSConfig}}, config.Fallbacks...)
	n := &negotiator{dial: config.DialFunc, lookup: config.LookupFunc,
		byHost: map[string]*tls.Config{}, byAddress: map[string]*tls.Config{}, asked: map[string]bool{}}
	var kept []*pgconn.FallbackConfig
	for i := 0; i < len(entries); i++ {
		e := entries[i]
		if i+1 == len(entries) || e.TLSConfig == nil || entries[i+1].TLSConfig != nil || entries[i+1].Host != e.Host ||
			entries[i+1].Port != e.Port {
			kept = append(kept, e)
			continue
		}
		i++
		n.byHost[e.Host] = e.TLSConfig
		without := &pgconn.FallbackConfig{Host: e.Host, Port: e.Port}
		kept = append(kept, without)
		if again {
			kept = append(kept, without)
		}
	}
	if len(n.byHost) == 0 || config.SSLCertMode == "require" {
		return false
	}
	config.TLSConfig, config.Fallbacks = nil, kept[1:]
	config.DialFunc, config.LookupFunc = n.Dial, n.Lookup
	return true
}

// negotiator dials and asks for TLS before pgconn sees the connection.
type negotiator struct {
	dial   pgconn.DialFunc
	lookup pgconn.LookupFunc

	byHost map[string]*tls.Config

	mu        sync.Mutex
	byAddress map[string]*tls.Config // without the port: that of the first name that led there
	asked     map[string]bool        // addresses with port
}

func (n *negotiator) Lookup(ctx context.Context, host string) ([]string, error) {
	addresses, err := n.lookup(ctx, host)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range addresses {
		if n.byAddress[a] == nil {
			n.byAddress[a] = n.byHost[host]
		}
	}
	return addresses, err
}

// Dial asks for TLS at the first connection to an address, and not at the second.
func (n *negotiator) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	raw, err := n.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil || network != "tcp" {
		return raw, nil // a socket
	}
	n.mu.Lock()
	config := n.byAddress[host]
	first := !n.asked[address]
	n.asked[address] = true
	n.mu.Unlock()
	if config == nil || !first {
		return raw, nil
	}
	conn, err := negotiate(ctx, raw, config)
	if err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return conn, nil
}

// sslRequest is the message that asks for TLS: its length and 80877103.
var sslRequest = [8]byte{0, 0, 0, 8, 4, 210, 22, 47}

// negotiate returns the connection with TLS, or as it is where the server has none. It blocks until the server has answered or ctx is
// done.
func negotiate(ctx context.Context, raw net.Conn, config *tls.Config) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(longAgo) })
	defer stop()
	if _, err := raw.Write(sslRequest[:]); err != nil {
		return nil, cause(ctx, err)
	}
	var answer [1]byte // not a byte more: what follows in the clear must not be taken for TLS
	if _, err := raw.Read(answer[:]); err != nil {
		return nil, cause(ctx, err)
	}
	switch answer[0] {
	case 'N':
		return raw, nil
	case 'S':
		conn := tls.Client(raw, config)
		if err := conn.HandshakeContext(ctx); err != nil {
			return nil, cause(ctx, err)
		}
		return conn, nil
	}
	return nil, fmt.Errorf("the server answers with %q", answer[0])
}

func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
