package pgb

import (
	"context"

	"github.com/jackc/pgx/v5/pgconn"
)

// ConsoleConfig is what Resolve made of an entry for one address.
func (p *Pooler) ConsoleConfig() *pgconn.Config { return p.config }

// SendOn puts PAUSE on its way on a console that is open already, as SendPause does after connecting.
func (p *Pooler) SendOn(ctx context.Context, c *Console) error {
	p.hold = append(p.hold, c)
	return c.Send(ctx, "PAUSE")
}

const MaxRows = maxRows

var ConfigArgument = configArgument

// Dial makes a pooler connect as the test says.
func Dial(p *Pooler, dial pgconn.DialFunc) { p.config.DialFunc = dial }

// PoolerOf is a pooler for a connection of the test's own.
func PoolerOf(name string, config *pgconn.Config) *Pooler { return &Pooler{Name: name, config: config} }
