// Package lab starts a real Patroni cluster behind real PgBouncers on this machine, in a few
// seconds, and takes it away again.
//
// Everything is the suite's own Debian package: etcd, Patroni with PostgreSQL, PgBouncer, HAProxy.
// Nothing is faked, with one exception that is a tool: each member reaches etcd through a TCP proxy
// inside this process, so that one member can lose its DCS while the others keep it ([Member.CutDCS]).
//
// # A container without an engine
//
// Each server runs in mount, UTS and PID namespaces of its own, on an overlay over the suite's root
// file system (made by scripts/lab-root.sh), with its own host name, /etc/hosts, /run, /tmp and
// address. Process 1 of a member is tini: it reaps, as an init in a container does. (Without one a
// stopped postmaster stays a zombie, which Patroni takes for alive; that costs a second in every
// stop.) When process 1 ends, the kernel ends everything else in the namespace.
//
// The network is the machine's own loopback: a lab takes one 127.77.N.0/24, and several labs may run
// side by side.
//
//	127.77.N.1      etcd
//	127.77.N.5      the route to the primary ("cluster")
//	127.77.N.11…    members m1, m2, m3: PostgreSQL 5432, Patroni 8008
//	127.77.N.21…    poolers p1, p2, …: 6432 ("pgbouncer" and "pgbouncers" are all of them)
//	127.77.N.111…   the proxies through which m1, m2, m3 reach etcd
//
// Connections of the lab's own say sslmode=disable, which nobody is told to write: a look must be one connection, and pgx (5.12) opens a
// second one, to perhaps another server, where the first was for TLS and the server has none.
//
// # Nothing stays behind
//
// Data lives on one tmpfs for each lab. [Lab.Close] ends every process by its id and unmounts. A
// process that dies without Close takes its servers along (the kernel kills them when their parent
// dies), and the next Start removes what is left on disk: a lab's directory is guarded by a lock that
// dies with its owner.
//
// # Waiting
//
// Functions that wait take a context and wait for a condition. On a context that ends they say what
// was still missing.
package lab
