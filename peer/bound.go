package peer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// The limits, in bytes. What counts of the log-in and of an answer is what keeping it takes in memory: its length, and for each message,
// column and parameter what Go and pgx add to it, which for many short ones is most of it. A PgBouncer with 15,000 server connections
// stays below them, and a server with 40,000 sessions.
const (
	MaxMessage = 1 << 20
	MaxLogin   = 1 << 20
	MaxAnswer  = 16 << 20
)

// MaxColumns is how many columns a row may have: PgBouncer's SHOW statements have up to 32 (1.26).
const MaxColumns = 256

// LimitError says that a peer has sent more than is taken of it. The connection is of no use after that.
type LimitError struct {
	What  string // "message", "log-in", "answer", "row"
	Limit int
	Unit  string
}

func (e *LimitError) Error() string {
	article := "a"
	if e.What == "answer" {
		article = "an"
	}
	return fmt.Sprintf("%s %s of more than %d %s", article, e.What, e.Limit, e.Unit)
}

// Bound makes every connection of a configuration keep the limits, also while it logs in. What exceeds them is a [*LimitError].
func Bound(config *pgconn.Config) {
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(&reader{from: r, limit: MaxLogin, what: "log-in"}, w)
	}
}

// reader follows the messages that go through it: a type, a length, which counts itself, and the body. It ends when one of the limits is
// exceeded, before more than one piece of what is too much was passed on.
type reader struct {
	from  io.Reader
	limit int // of what comes up to the next ReadyForQuery
	what  string
	cost  int
	head  [7]byte // of the message: type, length, and what begins the body
	have  int
	left  int    // of the body behind head
	auth  []byte // the body of a message about authentication, its beginning
	err   error
}

// MaxIterations is how often a password is hashed to log in: PostgreSQL's default is 4096 (scram_iterations), and a million take half a
// second.
const MaxIterations = 1_000_000

const (
	headSize     = 5
	maxAuth      = 2 << 10
	costMessage  = 192 // of a result or a parameter: structure, slices, entry of a map
	costRow      = 48
	costCell     = 16
	costOfColumn = 96
)

func (r *reader) Read(buffer []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.from.Read(buffer)
	if r.err = r.follow(buffer[:n]); r.err != nil {
		return 0, r.err
	}
	return n, err
}

func (r *reader) follow(part []byte) error {
	for len(part) > 0 {
		if r.left > 0 && r.have == len(r.head) {
			n := min(r.left, len(part))
			r.keep(part[:n])
			r.left -= n
			part = part[n:]
			if r.left == 0 {
				if err := r.end(); err != nil {
					return err
				}
			}
			continue
		}
		r.head[r.have] = part[0]
		r.have++
		part = part[1:]
		if r.have == headSize {
			if err := r.begin(); err != nil {
				return err
			}
		}
		if r.have <= headSize {
			if r.have == headSize && r.left == 0 {
				if err := r.end(); err != nil {
					return err
				}
			}
			continue
		}
		r.keep(r.head[r.have-1 : r.have])
		r.left--
		if r.have == len(r.head) {
			if err := r.columns(); err != nil {
				return err
			}
		}
		if r.left == 0 {
			if err := r.end(); err != nil {
				return err
			}
		}
	}
	return nil
}

// keep is for messages about authentication.
func (r *reader) keep(part []byte) {
	if r.head[0] == 'R' {
		r.auth = append(r.auth, part[:min(len(part), maxAuth-len(r.auth))]...)
	}
}

// begin looks at type and length. A length that is none ends in pgproto3, which reads the same.
func (r *reader) begin() error {
	length := int(int32(binary.BigEndian.Uint32(r.head[1:headSize])))
	r.left = max(length-4, 0)
	if r.left > MaxMessage {
		return &LimitError{What: "message", Limit: MaxMessage, Unit: "bytes"}
	}
	if r.head[0] == 'D' {
		return r.add(costRow + r.left)
	}
	return r.add(costMessage + r.left)
}

// columns looks at the number of columns, with which rows and their descriptions begin.
func (r *reader) columns() error {
	if r.head[0] != 'D' && r.head[0] != 'T' {
		return nil
	}
	n := int(binary.BigEndian.Uint16(r.head[headSize:]))
	if n > MaxColumns {
		return &LimitError{What: "row", Limit: MaxColumns, Unit: "columns"}
	}
	if r.head[0] == 'D' {
		return r.add(n * costCell)
	}
	return r.add(n * costOfColumn)
}

func (r *reader) add(cost int) error {
	if r.cost += cost; r.cost > r.limit {
		return &LimitError{What: r.what, Limit: r.limit, Unit: "bytes"}
	}
	return nil
}

// end is the end of a message.
func (r *reader) end() error {
	if r.head[0] == 'Z' { // ReadyForQuery
		r.cost, r.limit, r.what = 0, MaxAnswer, "answer"
	}
	auth := r.auth
	r.have, r.left, r.auth = 0, 0, auth[:0]
	return checkIterations(auth)
}

// checkIterations looks at AuthenticationSASLContinue (11), which says how often the password is to be hashed (RFC 5802: "r=…,s=…,i=…").
// pgx (5.12) does that ten million times, which takes seconds, whatever the context says.
func checkIterations(auth []byte) error {
	if len(auth) < 4 || binary.BigEndian.Uint32(auth) != 11 {
		return nil
	}
	for field := range bytes.SplitSeq(auth[4:], []byte(",")) {
		if digits, ok := bytes.CutPrefix(field, []byte("i=")); ok {
			if n, err := strconv.Atoi(string(digits)); err != nil || n > MaxIterations {
				return &LimitError{What: "password hash", Limit: MaxIterations, Unit: "iterations"}
			}
		}
	}
	return nil
}
