package config

import (
	"errors"
	"io/fs"
	"net"
	"net/url"
	"strings"

	"github.com/pgbaton/pgbaton/file"
)

// fillFromPatroni takes from Patroni's own configuration what ours does not say. It reads what Patroni reads, as Patroni does: a file or
// a folder, over it the variables. The files are not ours: what is wrong in them is a warning, and what can be read counts, for a
// Patroni that runs with what it had before goes on as well (config.py, reload_local_configuration).
func (l *loader) fillFromPatroni() error {
	p := &l.config.Patroni
	c, err := l.readPatroni()
	if err != nil {
		return err
	}
	fill := func(to *string, values ...string) {
		for _, v := range values {
			if *to == "" {
				*to = v
			}
		}
	}
	if p.URL == "" {
		p.URL = l.patroniURL(c)
	}
	fill(&p.Username, c.text("ctl", "authentication", "username"), c.text("restapi", "authentication", "username"))
	fill(&p.Password, c.text("ctl", "authentication", "password"), c.text("restapi", "authentication", "password"))
	fill(&p.CAFile, c.text("ctl", "cacert"), c.text("restapi", "cafile"))
	if p.CertFile == "" && p.KeyFile == "" {
		p.CertFile = c.text("ctl", "certfile")
		p.KeyFile = c.text("ctl", "keyfile")
		// A certificate's file may hold the key, too.
		fill(&p.KeyFile, p.CertFile)
	}
	p.Scope, p.Name = c.text("scope"), c.text("name")
	if l.config.Postgres == "" {
		dsn := localServer(c)
		if problem, hint, cause := checkDSN(dsn); problem != "" {
			l.warn(c.problem("does not say how to reach the local server", hint, cause, "postgresql"))
			return nil
		}
		l.config.Postgres = dsn
	}
	return nil
}

// readPatroni puts Patroni's configuration together. The error is about our own key: what it names cannot be read.
func (l *loader) readPatroni() (patroniSection, error) {
	variables := patroniFromVariables(l.patroniEnv)
	path := l.config.Patroni.Config
	if path == PatroniEnvironment {
		if text, ok := l.patroniEnv(
			"PATRONI_CONFIGURATION",
		); ok &&
			text != "" { // where there is no file, this counts and no other variable
			c, err := readPatroniText("PATRONI_CONFIGURATION", []byte(text))
			if err != nil {
				l.warn(asError(err))
			}
			return orEmpty(c), nil
		}
		if len(variables) == 0 {
			return nil, l.where("patroni.config").fail("there are no PATRONI_* variables, neither here nor in Patroni's process",
				"write the path of Patroni's file", nil)
		}
		return variables, nil
	}
	files, err := PatroniFiles(path)
	if errors.Is(err, fs.ErrNotExist) && len(variables) > 0 { // as Patroni does
		l.warn(&Error{File: path, Problem: "is not there; PATRONI_* variables count alone"})
		return variables, nil
	}
	if err != nil {
		return nil, l.where("patroni.config").fail(cannotRead(path, err), "", err)
	}
	c := patroniSection{}
	for _, name := range files {
		text, err := file.Read(name, MaxPatroniFile)
		if err != nil && len(files) == 1 {
			return nil, l.where("patroni.config").fail(cannotRead(name, err), "", err)
		}
		var section patroniSection
		if err == nil {
			section, err = readPatroniText(name, text)
		} else {
			err = &file.Problem{File: name, Problem: cannotRead(name, err), Err: err}
		}
		if err != nil {
			problem := asError(err)
			problem.Hint = strings.Trim(problem.Hint+"; Patroni does not take it, and runs with what it had before", "; ")
			l.warn(problem)
		}
		c.patch(section, 0)
	}
	c.patch(variables, 0)
	return c, nil
}

func orEmpty(c patroniSection) patroniSection {
	if c == nil {
		return patroniSection{}
	}
	return c
}

// patroniEnv is one of Patroni's variables: of our own environment, or of that which Patroni was started with.
func (l *loader) patroniEnv(name string) (string, bool) {
	if v, ok := l.env(name); ok {
		return v, true
	}
	if l.options.PatroniEnv == nil {
		return "", false
	}
	path := l.config.Patroni.Config
	if path == PatroniEnvironment {
		path = ""
	}
	return l.options.PatroniEnv(name, path)
}

// patroniURL is the address of the REST API; "" when it is not said, or is none.
func (l *loader) patroniURL(c patroniSection) string {
	scheme := "http"
	if c.text("restapi", "certfile") != "" {
		scheme = "https"
	}
	for _, address := range []string{c.text("restapi", "connect_address"), local(c.text("restapi", "listen"), "8008")} {
		if address == "" {
			continue
		}
		if u, err := url.Parse(scheme + "://" + address); err == nil && u.Host == address && u.Hostname() != "" {
			return scheme + "://" + address
		}
		l.warn(c.problem("is not HOST:PORT", "", nil, "restapi", "connect_address"))
	}
	return ""
}

// problem is what is wrong with a value. Its text is not shown.
func (s patroniSection) problem(problem, hint string, cause error, path ...string) *Error {
	e := &Error{Name: strings.Join(path, "."), Problem: problem, Hint: hint, Err: cause}
	if v := s.at(path...); v != nil {
		e.File, e.Line = v.file, v.line
	}
	return e
}

// localServer is the connection that Patroni itself makes to its server, as 3.0 to 4.1 choose it:
// the socket with use_unix_socket, else a local one of the addresses in listen.
func localServer(c patroniSection) string {
	host, port := splitListen(c.text("postgresql", "listen"))
	if c.isTrue("postgresql", "use_unix_socket") {
		sockets := c.text("postgresql", "parameters", "unix_socket_directories")
		first, _, _ := strings.Cut(sockets, ",")
		if host = strings.TrimSpace(first); host == "" {
			host = "/var/run/postgresql"
		}
	}
	user := c.text("postgresql", "authentication", "superuser", "username")
	if user == "" {
		user = "postgres"
	}
	parts := []string{"host=" + quoteDSN(host), "port=" + quoteDSN(port), "user=" + quoteDSN(user), "dbname=postgres"}
	for _, key := range superuserKeys() {
		if v := c.text("postgresql", "authentication", "superuser", key); v != "" {
			parts = append(parts, key+"="+quoteDSN(v))
		}
	}
	return strings.Join(parts, " ")
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
