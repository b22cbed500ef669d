package health

import (
	"context"
	"errors"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/peer"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/postgres"
)

// askAgent has the agent of a pooler look once at each address that the pooler leads to.
func askAgent(ctx context.Context, m *member.Member, p *pgb.Pooler) ([]routeView, error) {
	client, done, err := m.Agent(p)
	if err != nil {
		return nil, err
	}
	defer done()
	report, err := client.Route(ctx, "", 1)
	if err != nil {
		return nil, err
	}
	var seen []routeView
	for _, a := range report.Addresses {
		r := routeView{address: peer.Text(a.Address)}
		for _, l := range a.Looks {
			r.identity = postgres.Identity{SystemID: l.SystemID, PostmasterStart: l.PostmasterStart, InRecovery: l.InRecovery}
			if r.failed = l.Failed; r.failed != "" {
				r.err = errors.New(peer.Text(l.Error))
			}
		}
		seen = append(seen, r)
	}
	return seen, nil
}

func routeOf(ctx context.Context, local *postgres.Server, lead member.Lead) routeView {
	seen := routeView{address: lead.To.String(), identity: lead.There, err: lead.Err}
	if seen.err == nil && member.IsLoopback(lead.To.Host) {
		seen.direct = isDirect(ctx, local.At(postgres.Address{Host: lead.To.Host, Port: lead.To.Port}))
	}
	return seen
}

// isDirect reports whether nothing stands between an address of this machine and its server.
func isDirect(ctx context.Context, server *postgres.Server) bool {
	conn, err := server.Connect(ctx)
	if err != nil {
		return false
	}
	defer conn.Close()
	postmaster, err := conn.Postmaster(ctx)
	if err == nil {
		postmaster.Close()
	}
	return err == nil
}
