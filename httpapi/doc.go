// Package httpapi is the HTTP mode of pgbaton, for operators and pipelines: the functions of the command line behind an API.
//
// # What it adds
//
// Nothing is decided here: a handler checks what was asked for and calls package hooks. What the HTTP mode adds is what a caller over a
// network needs: who he is (bearer tokens, client certificates), that his request is taken once (Idempotency-Key), what has become of it when
// the connection or this process has died (operations, kept in the state directory), and numbers (metrics).
//
// # Operations
//
// A POST writes an operation to the disk before anything is done, and answers 202 with its path. One runs at a time, except resume: that is
// what one calls when things stand still, so it is never refused for another operation; it ends a pause that is under way. A server that was
// killed finds its operations again when it starts: one that had not begun has failed; one that ran is unknown, and is looked after until
// the poolers, the lease and the journal tell what it came to. Unknown is never called failed.
//
// # Errors
//
// Every error is a [Problem] (RFC 9457): also what net/http answers before a handler sees the request. Not problems, because nobody is
// there to read one: a failed TLS handshake, a connection that ends in the middle of a header, one that sends nothing for 5 s, and the 1025th
// connection, which are closed.
//
// # Cost
//
// The poolers are asked once a second at most, however many clients ask for the status, and once in 5 s for the metrics.
package httpapi
