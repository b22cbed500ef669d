// Package peer bounds what another program can cost us over a connection in PostgreSQL's protocol, and cleans what it says before a
// person reads it. A pooler's console or a server on the route may be anybody who answers at that address.
//
// [Bound] gives a connection its limits: of a message, of the log-in, of an answer. [Text] and [Error] make one short line of what a peer
// says, without control characters and without passwords.
package peer
