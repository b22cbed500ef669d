// Package postgres is a client of one PostgreSQL server, 13 to 18: who it is, who is at work in it, and which
// process it is. It reports and does what it is told; it decides nothing.
//
// # Connecting
//
// [Open] parses a connection string, in either form of libpq's, with PGHOST and its like, service files
// and password files as pgx reads them. [Server.Connect] makes one connection, [Server.At] is the same
// credentials at another address, for looking at where a route leads.
//
// A [Conn] is for one goroutine at a time. All statements go by the simple protocol, so that they
// pass a PgBouncer in any pool mode.
//
// # Contexts
//
// Everything that waits takes a context and waits no longer than it lasts; there is no limit besides. A context
// that ends during a statement ends the connection, at once and for good, without a cancel request: a
// PgBouncer may stand at that address.
//
// # Errors
//
// [NotRunning], [Lost], [Timeout] and [Denied] classify them. [ErrHidden] is returned beside
// what could be seen, and so is [*GrantError], which says what to grant. No error shows a password.
//
// # The process
//
// [Conn.Postmaster] gives the process that a connection leads to, held by a pidfd: a reused pid is never signalled.
package postgres
