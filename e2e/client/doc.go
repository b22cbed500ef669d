// Package client proves that the HTTP mode's own OpenAPI document is enough to make a client of it: the package api is generated from the
// document that a running pgbaton serve hands out (go run ./generate), and the test works with it against a real server.
//
// It is a module of its own: what a generator needs is none of the product's business. Nothing that is generated is kept in the repository,
// so it cannot be older than the server.
package client
