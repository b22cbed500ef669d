// Package setup writes the first pgbaton.yaml of a member: from Patroni's own configuration, from the files of the PgBouncers beside it,
// from what a person adds, and from what Patroni and the poolers answer. It changes nothing else.
package setup
