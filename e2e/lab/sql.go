package lab

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// errNoCancel is what pgconn gets when it wants to send a cancel request. PgBouncer takes one on its
// admin console for a RESUME; on a client's connection it would spoil what a test looks at.
var errNoCancel = errors.New("lab: cancel requests are off")

// connect opens a connection that never sends a cancel request. It also returns the bare connection, for
// deadlines.
func connect(ctx context.Context, dsn string) (*pgconn.PgConn, net.Conn, error) {
	config, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return nil, nil, err
	}
	config.Fallbacks = nil
	var raw net.Conn
	dialer := &net.Dialer{}
	config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if raw != nil {
			return nil, errNoCancel
		}
		c, err := dialer.DialContext(ctx, network, addr)
		raw = c
		return c, err
	}
	conn, err := pgconn.ConnectConfig(ctx, config)
	return conn, raw, err
}

// hangUp closes a connection without a word to the server and waits for pgconn's own clean-up.
func hangUp(conn *pgconn.PgConn, raw net.Conn) {
	raw.SetDeadline(time.Now()) // nothing may block
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn.Close(ctx)
	raw.Close()
}

// simpleQuery opens a connection, runs query by the simple protocol, and returns the last statement's
// rows by column name and its tag.
func simpleQuery(ctx context.Context, dsn, query string) ([]map[string]string, string, error) {
	conn, raw, err := connect(ctx, dsn)
	if err != nil {
		return nil, "", err
	}
	defer hangUp(conn, raw)
	return runQuery(ctx, conn, query)
}

func runQuery(ctx context.Context, conn *pgconn.PgConn, query string) ([]map[string]string, string, error) {
	results, err := conn.Exec(ctx, query).ReadAll()
	if err != nil || len(results) == 0 {
		return nil, "", err
	}
	last := results[len(results)-1]
	var rows []map[string]string
	for _, values := range last.Rows {
		row := map[string]string{}
		for i, v := range values {
			row[last.FieldDescriptions[i].Name] = string(v)
		}
		rows = append(rows, row)
	}
	return rows, last.CommandTag.String(), nil
}
