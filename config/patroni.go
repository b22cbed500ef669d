package config

import (
	"net"
	"net/url"
	"strings"

	"github.com/pgbaton/pgbaton/file"
)

// fillFromPatroni takes from Patroni's own configuration what ours does not say. Like Patroni,
// it lets PATRONI_* variables win over the file.
func (l *loader) fillFromPatroni(inFile map[string]value) error {
	p := &l.config.Patroni
	text, err := file.Read(p.Config, maxFile)
	if err != nil {
		return l.where("patroni.config", inFile).fail(cannotRead(p.Config, err), "", err)
	}
	doc, err := parseTree(p.Config, text)
	if err != nil {
		return err
	}
	if _, ok := doc.mapping(doc.root); !ok && !doc.isNull(doc.root) {
		return l.where("patroni.config", inFile).fail(p.Config+" is not a configuration of Patroni", "", nil)
	}
	look := func(variable string, path ...string) string {
		if v, ok := l.env("PATRONI_" + variable); ok {
			return v
		}
		return doc.at(path...)
	}
	fill := func(to *string, values ...string) {
		for _, v := range values {
			if *to == "" {
				*to = v
			}
		}
	}
	if p.URL == "" {
		address := look("RESTAPI_CONNECT_ADDRESS", "restapi", "connect_address")
		if address == "" {
			address = local(look("RESTAPI_LISTEN", "restapi", "listen"), "8008")
		}
		scheme := "http"
		if look("RESTAPI_CERTFILE", "restapi", "certfile") != "" {
			scheme = "https"
		}
		if address != "" {
			if u, err := url.Parse(scheme + "://" + address); err != nil || u.Host != address {
				return &Error{File: p.Config, Name: "restapi.connect_address", Problem: "is not HOST:PORT"}
			}
			p.URL = scheme + "://" + address
		}
	}
	fill(&p.Username, look("CTL_USERNAME", "ctl", "authentication", "username"), look("RESTAPI_USERNAME", "restapi", "authentication", "username"))
	fill(&p.Password, look("CTL_PASSWORD", "ctl", "authentication", "password"), look("RESTAPI_PASSWORD", "restapi", "authentication", "password"))
	fill(&p.CAFile, look("CTL_CACERT", "ctl", "cacert"), look("RESTAPI_CAFILE", "restapi", "cafile"))
	if p.CertFile == "" && p.KeyFile == "" {
		p.CertFile = look("CTL_CERTFILE", "ctl", "certfile")
		p.KeyFile = look("CTL_KEYFILE", "ctl", "keyfile")
		// A certificate's file may hold the key, too.
		fill(&p.KeyFile, p.CertFile)
	}
	p.Scope, p.Name = look("SCOPE", "scope"), look("NAME", "name")
	if l.config.Postgres == "" {
		dsn := localServer(doc, look)
		if problem, hint, cause := checkDSN(dsn); problem != "" {
			return &Error{File: p.Config, Name: "postgresql", Problem: "does not say how to reach the local server", Hint: hint, Err: cause}
		}
		l.config.Postgres = dsn
	}
	return nil
}

// localServer is the connection that Patroni itself makes to its server, as 3.0 to 4.1 choose it:
// the socket with use_unix_socket, else a local one of the addresses in listen.
func localServer(doc *tree, look func(string, ...string) string) string {
	host, port := splitListen(look("POSTGRESQL_LISTEN", "postgresql", "listen"))
	if isTrue(doc.at("postgresql", "use_unix_socket")) {
		sockets := doc.at("postgresql", "parameters", "unix_socket_directories")
		first, _, _ := strings.Cut(sockets, ",")
		if host = strings.TrimSpace(first); host == "" {
			host = "/var/run/postgresql"
		}
	}
	user := look("SUPERUSER_USERNAME", "postgresql", "authentication", "superuser", "username")
	if user == "" {
		user = "postgres"
	}
	parts := []string{"host=" + quoteDSN(host), "port=" + quoteDSN(port), "user=" + quoteDSN(user), "dbname=postgres"}
	for _, key := range []string{"password", "sslmode", "sslcert", "sslkey", "sslrootcert"} {
		if v := look("SUPERUSER_"+strings.ToUpper(key), "postgresql", "authentication", "superuser", key); v != "" {
			parts = append(parts, key+"="+quoteDSN(v))
		}
	}
	return strings.Join(parts, " ")
}

func isTrue(s string) bool {
	switch strings.ToLower(s) {
	case "true", "yes", "on", "1":
		return true
	}
	return false
}

// splitListen is the address of "A,B:5432" to connect to from here.
func splitListen(listen string) (host, port string) {
	hosts, port := listen, "5432"
	if i := strings.LastIndex(listen, ":"); i >= 0 && !strings.HasSuffix(listen, "]") {
		hosts, port = listen[:i], listen[i+1:]
	}
	first := ""
	for h := range strings.SplitSeq(hosts, ",") {
		h = strings.Trim(strings.TrimSpace(h), "[]")
		switch h {
		case "*", "0.0.0.0", "127.0.0.1":
			return "127.0.0.1", port
		case "localhost":
			return h, port
		case "::":
			h = "::1"
		}
		if first == "" {
			first = h
		}
	}
	if first == "" {
		first = "127.0.0.1"
	}
	return first, port
}

// local is an address that a server listens at as one to connect to.
func local(listen, port string) string {
	if listen == "" {
		return ""
	}
	if !strings.Contains(listen, ":") {
		listen += ":" + port
	}
	return net.JoinHostPort(splitListen(listen))
}
