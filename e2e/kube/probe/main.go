// Command probe is an application's clients, for the tests on Kubernetes: each of its connections writes a row, waits for the commit, and
// writes the next one. At SIGTERM it says, as one line of JSON, what they have seen. Where to connect to is in libpq's variables.
//
//	probe [-clients 8] [-interval 10ms] [-lifetime 0s] [-transaction 0s]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgbaton/pgbaton/e2e/seen"
)

type client struct {
	number int
	run    int64
	// lifetime is how long a connection is used before the client opens another one; 0: for ever. Pools of applications have it.
	lifetime, interval, transaction time.Duration
	seen                            seen.Client
	acknowledged                    []int64
}

func main() {
	clients := flag.Int("clients", 8, "connections")
	interval := flag.Duration("interval", 10*time.Millisecond, "between two transactions")
	lifetime := flag.Duration("lifetime", 0, "of a connection; 0: for ever")
	transaction := flag.Duration("transaction", 0, "how long each transaction is open")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	report, err := probe(ctx, *clients, client{interval: *interval, lifetime: *lifetime, transaction: *transaction, run: time.Now().UnixNano()})
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
	_ = json.NewEncoder(os.Stdout).Encode(report)
}

func probe(ctx context.Context, n int, like client) (seen.Report, error) {
	if err := prepare(ctx); err != nil {
		return seen.Report{}, err
	}
	began := time.Now()
	var working sync.WaitGroup
	all := make([]client, n)
	for i := range all {
		all[i] = like
		all[i].number = i
		working.Go(func() { all[i].work(ctx) })
	}
	working.Wait()
	report := seen.Report{}
	there, err := rows(like.run)
	if err != nil {
		return report, err
	}
	for _, c := range all {
		report.Clients = append(report.Clients, c.seen)
		for _, number := range c.acknowledged {
			report.Acknowledged++
			if !there[[2]int64{int64(c.number), number}] {
				report.Lost++
			}
		}
	}
	report.Count(began)
	return report, nil
}

// prepare makes the table, and waits for a primary as long as it takes.
func prepare(ctx context.Context) error {
	for {
		conn, err := pgx.Connect(ctx, "")
		if err == nil {
			_, err = conn.Exec(ctx, `CREATE TABLE IF NOT EXISTS probe (run bigint, client int, number bigint, PRIMARY KEY (run, client, number))`)
			conn.Close(ctx)
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// work is a client's life. A statement that has begun is waited for; nothing but the end of the probe cuts one short, and not the first second.
func (c *client) work(ctx context.Context) {
	hard, cancel := context.WithCancel(context.Background())
	defer cancel()
	context.AfterFunc(ctx, func() { time.AfterFunc(time.Second, cancel) })
	last, number := time.Now(), int64(0)
	for ctx.Err() == nil {
		conn, err := pgx.Connect(hard, "")
		for opened := time.Now(); err == nil && ctx.Err() == nil && (c.lifetime == 0 || time.Since(opened) < c.lifetime); {
			number++
			if err = c.write(hard, conn, number); err != nil {
				break
			}
			now := time.Now()
			c.acknowledged = append(c.acknowledged, number)
			c.seen.Committed(last, now)
			last = now
			time.Sleep(c.interval)
		}
		if err != nil && ctx.Err() == nil {
			c.seen.Errors = append(c.seen.Errors, seen.Error{At: time.Now(), Text: err.Error()})
			time.Sleep(100 * time.Millisecond)
		}
		if conn != nil {
			_ = conn.Close(hard)
		}
	}
	c.seen.Add(last, time.Now())
}

func (c *client) write(ctx context.Context, conn *pgx.Conn, number int64) error {
	insert := "INSERT INTO probe VALUES (" + strconv.FormatInt(c.run, 10) + ", " + strconv.Itoa(c.number) + ", " +
		strconv.FormatInt(number, 10) + ")"
	if c.transaction > 0 {
		insert = fmt.Sprintf("BEGIN; %s; SELECT pg_sleep(%f); COMMIT", insert, c.transaction.Seconds())
	}
	_, err := conn.PgConn().Exec(ctx, insert).ReadAll()
	return err
}

// rows are the numbers that are there, of each client.
func rows(run int64) (map[[2]int64]bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgconn.Connect(ctx, "")
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	results, err := conn.Exec(ctx, fmt.Sprintf("SELECT client, number FROM probe WHERE run = %d", run)).ReadAll()
	there := map[[2]int64]bool{}
	for _, result := range results {
		for _, row := range result.Rows {
			client, err1 := strconv.ParseInt(string(row[0]), 10, 64)
			number, err2 := strconv.ParseInt(string(row[1]), 10, 64)
			err = errors.Join(err, err1, err2)
			there[[2]int64{client, number}] = true
		}
	}
	return there, err
}
