// Package pgbini knows PgBouncer's configuration file: [ReadFile] reads it as PgBouncer does, [File.Check] tells what a version refuses
// in it, and [File.Diff] what of it is not in force. It asks no pooler: what a running one says ([Setting], [Database]) is given to it.
//
// Where it was measured, it says so; the versions are 1.18.0, 1.24.1 and 1.26.1.
package pgbini
