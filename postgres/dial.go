package postgres

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	dialAgain = 200 * time.Millisecond // without an answer; Linux itself sends its second SYN after 1 s
	dialsMost = 5
)

// dialUntilAnswered is dial for a look at an address that moves: a request that is lost, because it was sent to a host that is gone or
// before kube-proxy knew the new one, is sent anew every dialAgain, dialsMost times in all. It returns the first answer, a connection or a
// refusal, and blocks for as long as dial does where there is none.
func dialUntilAnswered(dial pgconn.DialFunc) pgconn.DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if network == "unix" {
			return dial(ctx, network, addr)
		}
		type answer struct {
			conn net.Conn
			err  error
		}
		answers := make(chan answer, dialsMost)
		trying, cancel := context.WithCancel(ctx)
		var all sync.WaitGroup
		again := time.NewTimer(0)
		defer again.Stop()
		for sent := 0; ; {
			select {
			case <-again.C:
				sent++
				all.Go(func() {
					conn, err := dial(trying, network, addr)
					answers <- answer{conn, err}
				})
				if sent < dialsMost {
					again.Reset(dialAgain)
				}
			case first := <-answers:
				cancel()
				all.Wait()
				close(answers)
				for late := range answers {
					if late.conn != nil {
						_ = late.conn.Close()
					}
				}
				return first.conn, first.err
			}
		}
	}
}
