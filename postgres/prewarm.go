package postgres

import "context"

// Autoprewarm counts pg_prewarm's processes: the leader, which is there for as long as the server runs with autoprewarm on, and the workers
// that read the buffers of a database in, after a start (autoprewarm.c, 11 to 18).
func (c *Conn) Autoprewarm(ctx context.Context) (leaders, workers int, err error) {
	results, err := c.query(ctx, `select count(*) filter (where backend_type = 'autoprewarm leader'),
 count(*) filter (where backend_type = 'autoprewarm worker') from pg_stat_activity`)
	if err != nil {
		return 0, 0, err
	}
	all, err := rows(results, 0, 2)
	if err != nil {
		return 0, 0, err
	}
	for _, r := range all {
		leaders, workers = int(r.int()), int(r.int())
		err = r.err
	}
	return leaders, workers, err
}
