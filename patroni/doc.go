// Package patroni is a client of one member's Patroni REST API. It reports; it decides nothing.
//
// # Connecting
//
// [New] checks its [Options] and reads certificate files; nothing is sent. Every call is one HTTP/1.1
// request on a connection of its own: Patroni's server speaks HTTP/1.0 and closes anyway (4.0.7), and a
// connection kept from before a SIGTERM says nothing about now. Proxies of the environment are not
// used, redirects are not followed, answers are read up to 1 MiB.
//
// # Contexts
//
// Every call blocks until the answer is there, the context is done, or 10 s are over (1 s for the
// connection). A context that is cancelled leaves nothing behind.
//
// # Errors
//
// Every error of a call is an [*Error]. What a guard asks of it:
//
//   - [Unanswered]: somebody listens there and does not answer. So is a Patroni that was told to end
//     (SIGTERM: its REST loop has ended, nobody renews the leader lock; 4.0.7, 4.1.5) and one that is
//     frozen.
//   - [Unreachable]: nobody is there, or it is not who it must be: refused, no route, no such name, TLS.
//   - [Unauthorized]: the credentials or the client certificate are not enough.
//
// No error shows a password.
package patroni
