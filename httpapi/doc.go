// Package httpapi is the HTTP mode of pgbaton, for operators and pipelines: the functions of the command line behind an API.
//
// # What it adds
//
// Nothing is decided here, and nothing kept: a handler checks what was asked for, and calls package operation, which runs it and writes it
// down. What the HTTP mode adds is what a caller over a network needs: who they are (bearer tokens, client certificates), operations and
// their steps as answers and event streams, problems for errors, and numbers (metrics). The types on the wire are those of package api.
//
// # Errors
//
// Every error is an [api.Problem] (RFC 9457): also what net/http answers before a handler sees the request. Not problems, because nobody is
// there to read one: a failed TLS handshake, a connection that ends in the middle of a header, one that sends nothing for 5 s, and the
// longest idle of 1025 connections, which are closed.
//
// # Callers without credentials
//
// A caller without credentials gets what is open to all, from a finished text that must be read within 5 s, and takes no place among the
// requests of others. Of too many connections the one on which nothing has happened for longest is closed, never one with a request of a
// known caller.
//
// # Cost
//
// The poolers are asked once a second at most, however many clients ask for the status, and once in 5 s for the metrics.
package httpapi
