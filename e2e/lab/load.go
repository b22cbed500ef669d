package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// prepareLoad makes pgbench's tables, and the table that probes write to, once.
func (l *Lab) prepareLoad(ctx context.Context) error {
	l.loadOnce.Do(func() {
		l.loadErr = func() error {
			leader, err := l.Leader(ctx)
			if err != nil {
				return err
			}
			r, err := leader.Exec(
				ctx,
				nil,
				"pgbench",
				"-i",
				"-q",
				"-s",
				strconv.Itoa(l.opts.PgbenchScale),
				"-h",
				"/run/postgresql",
				"postgres",
			)
			if err != nil || r.ExitCode != 0 {
				return fmt.Errorf("pgbench -i: exit code %d: %s: %v", r.ExitCode, r.Stderr, err)
			}
			_, err = leader.SQL(ctx, "CREATE TABLE lab_probe (run int, conn int, seq bigint, PRIMARY KEY (run, conn, seq))")
			return err
		}()
	})
	return l.loadErr
}

// Pgbench is a pgbench that runs.
type Pgbench struct {
	c      *container
	output string
	begin  time.Time
}

// PgbenchResult is what a pgbench has to say at its end.
type PgbenchResult struct {
	Transactions int
	Aborted      int      // clients that gave up
	Errors       []string // everything on its terminal that is neither progress nor summary
	Progress     []PgbenchProgress
	Output       string
}

// PgbenchProgress is one line of -P 1.
type PgbenchProgress struct {
	At      time.Time
	TPS     float64
	Latency time.Duration
	Failed  int
}

// StartPgbench starts pgbench's default script through a pooler, until [Pgbench.Stop]. It returns when
// pgbench has reported a second with transactions in it.
func (l *Lab) StartPgbench(ctx context.Context, p *Pooler, clients, threads int) (*Pgbench, error) {
	if err := l.prepareLoad(ctx); err != nil {
		return nil, err
	}
	l.runs.Lock()
	l.nextRun++
	name := fmt.Sprintf("pgbench%d", l.nextRun)
	l.runs.Unlock()
	s, err := l.container(name)
	if err != nil {
		return nil, err
	}
	argv := []string{"pgbench", "-n", "-c", strconv.Itoa(clients), "-j", strconv.Itoa(threads), "-T", "86400",
		"-P", "1", "--progress-timestamp", "-h", p.clientAddress(), "-p", "6432", "-U", "postgres"}
	if l.opts.PgbenchRate > 0 {
		argv = append(argv, "-R", strconv.Itoa(l.opts.PgbenchRate))
	}
	s.argv = asPostgres(append(argv, "postgres")...)
	b := &Pgbench{output: s.output, begin: time.Now()}
	if b.c, err = s.start(); err != nil {
		return nil, err
	}
	l.runs.Lock()
	l.loads = append(l.loads, b.c)
	l.runs.Unlock()
	waiting, giveUp := context.WithCancel(ctx)
	defer giveUp()
	err = Until(waiting, 20*time.Millisecond, "pgbench to work", func(context.Context) error {
		running := b.Running()
		content, err := os.ReadFile(b.output)
		if err != nil {
			return err
		}
		if !running {
			giveUp()
			return fmt.Errorf("it has ended: %s", content)
		}
		for _, p := range parsePgbench(string(content)).Progress {
			if p.TPS > 0 {
				return nil
			}
		}
		return fmt.Errorf("it has not yet: %s", content)
	})
	if err != nil {
		b.c.kill()
		return nil, err
	}
	return b, nil
}

// Running tells whether pgbench still runs; it ends by itself when all its clients have given up.
func (b *Pgbench) Running() bool { return b.c.running() }

// Stop has pgbench end its run and returns what it did. Clients that hang are cut off when ctx ends.
func (b *Pgbench) Stop(ctx context.Context) (PgbenchResult, error) {
	if b.c.running() {
		// The end of -T is an alarm; so a run of any length ends with its summary.
		syscall.Kill(b.c.pid, syscall.SIGALRM)
	}
	err := b.c.wait(ctx)
	if err != nil {
		b.c.kill()
	}
	content, readErr := os.ReadFile(b.output)
	return parsePgbench(string(content)), errors.Join(err, readErr)
}

var (
	pgbenchProgress = regexp.MustCompile(
		`^progress: ([0-9.]+) s, ([0-9.]+) tps, lat ([0-9.]+|NaN) ms stddev ([0-9.]+|NaN)(?:, ([0-9]+) failed)?`,
	)
	pgbenchSummary = regexp.MustCompile(
		`^(pgbench \(|rate limit schedule lag|transaction type:|scaling factor:|query mode:|number of |maximum number of|duration:|latency |initial connection time|tps = )`,
	)
)

func parsePgbench(output string) PgbenchResult {
	r := PgbenchResult{Output: output}
	for _, line := range strings.Split(output, "\n") {
		if m := pgbenchProgress.FindStringSubmatch(line); m != nil {
			at, _ := strconv.ParseFloat(m[1], 64)
			tps, _ := strconv.ParseFloat(m[2], 64)
			latency, _ := strconv.ParseFloat(m[3], 64)
			failed, _ := strconv.Atoi(m[5])
			if latency != latency { // NaN: nothing was done in that second
				latency = 0
			}
			r.Progress = append(r.Progress, PgbenchProgress{
				time.UnixMilli(int64(at * 1000)), tps, time.Duration(latency * float64(time.Millisecond)), failed})
			continue
		}
		if n, ok := strings.CutPrefix(line, "number of transactions actually processed: "); ok {
			n, _, _ = strings.Cut(n, "/")
			r.Transactions, _ = strconv.Atoi(n)
		}
		if strings.TrimSpace(line) == "" || pgbenchSummary.MatchString(line) {
			continue
		}
		if strings.Contains(line, "aborted") && strings.Contains(line, "client ") {
			r.Aborted++
		}
		r.Errors = append(r.Errors, line)
	}
	return r
}

// Probe writes through the poolers, one transaction each interval on each of its connections, and
// remembers every acknowledged commit and every error.
type Probe struct {
	lab   *Lab
	run   int
	conns []*probeConn
	brief bool // each connection is for one transaction
	begin time.Time
	stop  chan struct{}
	wg    sync.WaitGroup
}

type probeConn struct {
	pooler  *Pooler
	mu      sync.Mutex
	raw     interface{ SetDeadline(time.Time) error }
	commits []time.Time
	acked   []int64
	errors  []ProbeError
}

// ProbeError is what one connection of a probe was told, or how it was cut off.
type ProbeError struct {
	At     time.Time
	Conn   int
	Pooler string
	Text   string
}

func (e ProbeError) String() string {
	return fmt.Sprintf("%s connection %d (%s): %s", e.At.UTC().Format("15:04:05.000"), e.Conn, e.Pooler, e.Text)
}

// Stall is a gap between two commits of one connection.
type Stall struct {
	Conn     int
	From, To time.Time
}

// Length is how long the connection had to wait.
func (s Stall) Length() time.Duration { return s.To.Sub(s.From) }

func (s Stall) String() string {
	return fmt.Sprintf("%.3f s from %s on connection %d", s.Length().Seconds(), s.From.UTC().Format("15:04:05.000"), s.Conn)
}

// ProbeResult is what a probe has seen.
type ProbeResult struct {
	Began, Ended time.Time
	Acked        int
	Errors       []ProbeError // in order of time
	Commits      [][]time.Time
	LongestStall Stall

	run   int
	acked [][]int64
}

// StallBetween is the longest gap between commits of any one connection that overlaps [from, to]. The
// beginning and the end of the probe count as commits, so a connection that never came back shows.
func (r ProbeResult) StallBetween(from, to time.Time) Stall {
	var longest Stall
	for i, commits := range r.Commits {
		last := r.Began
		for _, at := range append(commits[:len(commits):len(commits)], r.Ended) {
			if s := (Stall{i, last, at}); s.Length() > longest.Length() && last.Before(to) && at.After(from) {
				longest = s
			}
			last = at
		}
	}
	return longest
}

// ErrorTexts counts the errors by their text.
func (r ProbeResult) ErrorTexts() map[string]int {
	texts := map[string]int{}
	for _, e := range r.Errors {
		texts[e.Text]++
	}
	return texts
}

// StartProbe starts conns connections, spread over all running poolers. It returns when each has
// committed once.
func (l *Lab) StartProbe(ctx context.Context, conns int, interval time.Duration) (*Probe, error) {
	return l.startProbe(ctx, conns, interval, false)
}

// StartNewcomers is StartProbe for clients that come anew for each transaction, write, and leave.
func (l *Lab) StartNewcomers(ctx context.Context, conns int, interval time.Duration) (*Probe, error) {
	return l.startProbe(ctx, conns, interval, true)
}

func (l *Lab) startProbe(ctx context.Context, conns int, interval time.Duration, brief bool) (*Probe, error) {
	if err := l.prepareLoad(ctx); err != nil {
		return nil, err
	}
	l.runs.Lock()
	l.nextRun++
	p := &Probe{lab: l, run: l.nextRun, brief: brief, begin: time.Now(), stop: make(chan struct{})}
	l.runs.Unlock()
	var poolers []*Pooler
	for _, pooler := range l.poolers {
		if pooler.Running() {
			poolers = append(poolers, pooler)
		}
	}
	if len(poolers) == 0 {
		return nil, errors.New("probe: no pooler runs")
	}
	for i := range conns {
		c := &probeConn{pooler: poolers[i%len(poolers)]}
		p.conns = append(p.conns, c)
		p.wg.Add(1)
		go func() { defer p.wg.Done(); p.write(i, c, interval) }()
	}
	err := Until(ctx, 5*time.Millisecond, "every connection of the probe to commit", func(context.Context) error {
		for i, c := range p.conns {
			c.mu.Lock()
			n, errs := len(c.commits), c.errors
			c.mu.Unlock()
			if n == 0 {
				if len(errs) > 0 {
					return errors.New(errs[len(errs)-1].String())
				}
				return fmt.Errorf("connection %d has not", i)
			}
		}
		return nil
	})
	if err != nil {
		p.end(0)
		return nil, err
	}
	p.begin = time.Now()
	return p, nil
}

func (p *Probe) stopped() bool {
	select {
	case <-p.stop:
		return true
	default:
		return false
	}
}

// write is one connection's life.
func (p *Probe) write(number int, c *probeConn, interval time.Duration) {
	const connectTimeout = 2 * time.Minute // longer than anything that PgBouncer lets a client wait
	tick := time.NewTicker(interval)
	defer tick.Stop()
	failed := func(err error) {
		if !p.stopped() {
			c.mu.Lock()
			c.errors = append(c.errors, ProbeError{time.Now(), number, c.pooler.Name, err.Error()})
			c.mu.Unlock()
		}
	}
	var seq int64
	for !p.stopped() {
		ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
		go func() {
			select {
			case <-p.stop:
				cancel()
			case <-ctx.Done():
			}
		}()
		conn, raw, err := connect(ctx, c.pooler.DSN())
		cancel()
		if err != nil {
			failed(err)
			p.sleep(100 * time.Millisecond)
			continue
		}
		c.mu.Lock()
		c.raw = raw
		c.mu.Unlock()
		for !p.stopped() {
			seq++
			// No context: nothing may cut a statement short, and the end is a deadline on the connection.
			_, err := conn.Exec(context.Background(), fmt.Sprintf("INSERT INTO lab_probe VALUES (%d, %d, %d)", p.run, number, seq)).
				ReadAll()
			if err != nil {
				failed(err)
				var server *pgconn.PgError
				if errors.As(err, &server) && !conn.IsClosed() {
					p.sleep(interval)
					continue // an error of the statement: the connection lives
				}
				break
			}
			c.mu.Lock()
			c.commits = append(c.commits, time.Now())
			c.acked = append(c.acked, seq)
			c.mu.Unlock()
			select {
			case <-tick.C:
			case <-p.stop:
			}
			if p.brief {
				break
			}
		}
		c.mu.Lock()
		c.raw = nil
		c.mu.Unlock()
		hangUp(conn, raw)
		p.sleep(20 * time.Millisecond)
	}
}

// sleep waits, but not beyond the end.
func (p *Probe) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.stop:
	}
}

// Commits counts what has been acknowledged so far.
func (p *Probe) Commits() int {
	n := 0
	for _, c := range p.conns {
		c.mu.Lock()
		n += len(c.commits)
		c.mu.Unlock()
	}
	return n
}

// Errors lists what has gone wrong so far.
func (p *Probe) Errors() []ProbeError {
	var all []ProbeError
	for _, c := range p.conns {
		c.mu.Lock()
		all = append(all, c.errors...)
		c.mu.Unlock()
	}
	sort.Slice(all, func(i, j int) bool { return all[i].At.Before(all[j].At) })
	return all
}

// WaitFlowing waits until every connection has committed n more times: clients work again.
func (p *Probe) WaitFlowing(ctx context.Context, n int) error {
	target := make([]int, len(p.conns))
	for i, c := range p.conns {
		c.mu.Lock()
		target[i] = len(c.commits) + n
		c.mu.Unlock()
	}
	return Until(ctx, 10*time.Millisecond, "every connection of the probe to write", func(context.Context) error {
		for i, c := range p.conns {
			c.mu.Lock()
			have := len(c.commits)
			c.mu.Unlock()
			if have < target[i] {
				return fmt.Errorf("connection %d has %d commits to go", i, target[i]-have)
			}
		}
		return nil
	})
}

// end stops all connections; a statement that waits gets grace to finish.
func (p *Probe) end(grace time.Duration) {
	close(p.stop)
	for _, c := range p.conns {
		c.mu.Lock()
		if c.raw != nil {
			c.raw.SetDeadline(time.Now().Add(grace))
		}
		c.mu.Unlock()
	}
	p.wg.Wait()
}

// Stop ends the probe and returns what it has seen.
func (p *Probe) Stop() ProbeResult {
	ended := time.Now()
	p.end(time.Second)
	r := ProbeResult{Began: p.begin, Ended: ended, run: p.run}
	for _, c := range p.conns {
		var commits []time.Time
		for _, at := range c.commits {
			if at.After(p.begin) && at.Before(ended) {
				commits = append(commits, at)
			}
		}
		r.Commits = append(r.Commits, commits)
		r.acked = append(r.acked, c.acked)
		r.Acked += len(c.acked)
	}
	r.Errors = p.Errors()
	r.LongestStall = r.StallBetween(r.Began, r.Ended)
	return r
}

// VerifyWrites returns an error when a write that was acknowledged to the probe is not on the primary.
func (r ProbeResult) VerifyWrites(ctx context.Context, l *Lab) error {
	leader, err := l.WaitLeader(ctx, nil)
	if err != nil {
		return err
	}
	rows, err := leader.SQL(ctx, fmt.Sprintf("SELECT conn, seq FROM lab_probe WHERE run = %d", r.run))
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(rows))
	for _, row := range rows {
		there[row["conn"]+"/"+row["seq"]] = true
	}
	var lost []string
	for conn, seqs := range r.acked {
		for _, seq := range seqs {
			if id := fmt.Sprintf("%d/%d", conn, seq); !there[id] {
				lost = append(lost, id)
			}
		}
	}
	if len(lost) > 0 {
		return fmt.Errorf("%d acknowledged writes of %d are not on %s (connection/number): %s", len(lost), r.Acked, leader.Name,
			strings.Join(lost[:min(len(lost), 10)], " "))
	}
	return nil
}
