package postgres

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgpassfile"
	"github.com/jackc/pgx/v5/pgconn"
)

// Address is one TCP address of a server, as somebody else names it: a pooler, say.
type Address struct {
	Host     string // a name or an IP address. TLS verifies it, and the password file is asked for it
	Socket   string // instead of Host: the directory of a Unix socket
	IP       string // the address to dial where Host is a name; empty: every address that the name has, one after the other
	Port     uint16
	Database string // empty: the configured one
}

// requireSCRAM is the default of require_auth for an address that somebody else has named. By another method whoever listens there would
// be shown the password, or what it can be guessed from. "none" is a server that asks for none (trust, a certificate): it is shown
// nothing.
const requireSCRAM = "scram-sha-256,none"

// The host that a connection string is parsed with to learn its TLS settings and its own password: for a socket pgconn throws away what
// sslmode asks for, and a password file knows hosts. The name is reserved (RFC 2606), and the text is the same for every address.
const (
	neutralHost    = "pgbaton.invalid"
	neutralKeyword = " host=" + neutralHost + " port=5432 passfile=/dev/null"
	neutralQuery   = "host=" + neutralHost + "&port=5432&passfile=/dev/null"
)

// elsewhere is what [Server.At] starts from.
type elsewhere struct {
	config   *pgconn.Config // for neutralHost, with the connection string's own password only
	err      error
	passfile string
}

func parseElsewhere(conninfo string) *elsewhere {
	neutral := conninfo + neutralKeyword
	if isURL(conninfo) {
		separator := "?"
		switch _, query, hasQuery := strings.Cut(afterLogin(conninfo), "?"); {
		case hasQuery && (query == "" || strings.HasSuffix(query, "&")):
			separator = ""
		case hasQuery:
			separator = "&"
		}
		neutral = conninfo + separator + neutralQuery
	}
	config, err := pgconn.ParseConfig(neutral)
	switch {
	case err != nil:
		err = parseError(err)
	case config.Host != neutralHost: // a backslash at the end has taken the space
		err = errors.New("postgres: the connection string ends in a backslash")
	}
	return &elsewhere{config: config, err: err, passfile: passfile(conninfo)}
}

// At is the same user and TLS settings at another TCP address. Nothing of the address becomes part of a connection string. The
// password is that of the connection string itself, or else the one that the password file has for this address; a password that the
// file limits to another server is not used. It is
// given by SCRAM only, unless the connection string has require_auth.
//
// One [Server.Connect] of it makes one connection, as libpq and PgBouncer do: with sslmode=prefer and a server without TLS it goes on
// in the same one. A condition on the server's role (target_session_attrs) is dropped: who looks where a route leads wants to see a
// replica too. What is wrong with the address, Connect returns.
func (s *Server) At(to Address) *Server {
	fail := func(err error) *Server { return &Server{config: s.config, elsewhere: s.elsewhere, err: err} }
	switch {
	case s.err != nil:
		return s
	case s.elsewhere.err != nil:
		return fail(s.elsewhere.err)
	case to.Socket != "" && filepath.IsAbs(to.Socket) && to.Host == "" && to.IP == "" && to.Port != 0 &&
		!strings.ContainsRune(to.Database, 0):
		return s.atSocket(to)
	case to.Socket != "", !isIP(to.Host) && !isName(to.Host),
		to.IP != "" && !isIP(to.IP), to.Port == 0, strings.ContainsRune(to.Database, 0):
		return fail(fmt.Errorf("postgres: %q port %d is not one TCP address", to.Host, to.Port))
	}
	config := s.elsewhere.config.Copy()
	config.User = s.config.User
	config.Host, config.Port, config.Database = to.Host, to.Port, to.Database
	if config.Database == "" {
		config.Database = s.config.Database
	}
	if to.IP != "" {
		config.LookupFunc = toOne(to.IP)
	}
	setServerName(config, to.Host)
	if config.Password == "" {
		config.Password = s.filedPassword(config, to)
	}
	if config.RequireAuth == "" && config.Password != "" {
		config.RequireAuth = requireSCRAM
	}
	config.ValidateConnect = nil
	return &Server{config: config, elsewhere: s.elsewhere, single: true, plain: new(atomic.Bool)}
}

// atSocket is [Server.At] for a Unix socket. libpq looks for its password as for localhost, and there is no TLS.
func (s *Server) atSocket(to Address) *Server {
	config := s.elsewhere.config.Copy()
	config.User, config.TLSConfig, config.Fallbacks, config.ValidateConnect = s.config.User, nil, nil, nil
	config.Host, config.Port, config.Database = to.Socket, to.Port, cmp.Or(to.Database, s.config.Database)
	if config.Password == "" {
		config.Password = s.filedPassword(config, Address{Host: "localhost"})
	}
	if config.RequireAuth == "" && config.Password != "" {
		config.RequireAuth = requireSCRAM
	}
	return &Server{config: config, elsewhere: s.elsewhere, single: true, plain: new(atomic.Bool)}
}

// Once is the same server where one [Server.Connect] makes one connection to each host, as with [Server.At].
func (s *Server) Once() *Server {
	return &Server{config: s.config, elsewhere: s.elsewhere, single: true, plain: new(atomic.Bool), err: s.err}
}

// filedPassword is what the password file has for an address: by the name, as libpq asks for it, or else by the address behind it.
func (s *Server) filedPassword(config *pgconn.Config, to Address) string {
	file, err := pgpassfile.ReadPassfile(s.elsewhere.passfile)
	if err != nil {
		return ""
	}
	port := strconv.Itoa(int(config.Port))
	password := file.FindPassword(to.Host, port, config.Database, config.User)
	if password == "" && to.IP != "" {
		password = file.FindPassword(to.IP, port, config.Database, config.User)
	}
	return password
}

// setServerName makes TLS ask for this host and verify it, where the settings say that it does.
func setServerName(config *pgconn.Config, host string) {
	entries := []**tls.Config{&config.TLSConfig}
	for _, f := range config.Fallbacks {
		f.Host, f.Port = config.Host, config.Port
		entries = append(entries, &f.TLSConfig)
	}
	for _, e := range entries {
		if *e == nil || (*e).ServerName == "" {
			continue // sslsni=0
		}
		named := (*e).Clone()
		named.ServerName = host
		if isIP(host) && named.InsecureSkipVerify {
			named.ServerName = "" // RFC 6066: only names are sent
		}
		*e = named
	}
}

func isIP(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Zone() == ""
}

// isName reports whether it looks like a host name: labels of letters, digits, - and _.
func isName(host string) bool {
	if host == "" || len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || strings.HasPrefix(label, "-") {
			return false
		}
		for _, c := range []byte(label) {
			if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}
