// Package api is what the HTTP mode of pgbaton and its callers say to each other: the types on the wire, and a client.
//
// The package knows nothing of how a server is made: no routes, no state directory, no OpenAPI. The struct tags besides json are read by
// the server, which makes its OpenAPI document of these types.
//
// # Errors
//
// Every error of a server is a [Problem], also for a caller of a [Client]: errors.As finds it. Decide by its Class; [Problem.Name] is the
// stable name of its type.
package api
