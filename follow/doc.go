// Package follow moves a pooler to the leader where its clients cannot be: most installers put a PgBouncer on every database node that
// leads to the local server, and at a switchover the clients of the old node's pooler stay where nobody takes writes.
//
// [Finder] finds the leader: any member's REST API says who holds the lock (Patroni reads the DCS for GET /cluster, 3.0 to 4.1), and the
// server proves it: it is one of the same database cluster, not in recovery, and its timeline is not older than one that was seen before.
//
// [Mover] moves one pooler that stands beside us: it writes host and port of the entries that are ours into the pooler's file, has it read
// (RELOAD), looks whether it goes there (SHOW DATABASES), and puts the mark of a pause back on, which RELOAD takes away. The keeper of a
// handover does so on the old primary, the worker on the new one, and serve on all others ([Watch]).
package follow
