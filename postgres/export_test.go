package postgres

import "context"

func BackendPID(ctx context.Context, c *Conn) (int, error) { return c.backendPID(ctx) }
