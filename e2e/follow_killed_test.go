package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/lab"
)

var ledTo = regexp.MustCompile(`host=\S+( port=\d+)?`)

// entriesWithoutAddress are the files that pgbaton writes, without what it writes there.
func (c *cluster) entriesWithoutAddress() (texts []string) {
	c.t.Helper()
	for _, p := range c.Poolers() {
		text, err := os.ReadFile(p.DatabasesPath())
		c.must(err)
		texts = append(texts, ledTo.ReplaceAllString(string(text), "host="))
	}
	return texts
}

// TestFollowKilled: whoever moves poolers in a switchover is killed at some moment of it. Another one of them does it: no client sees an
// error, none waits longer than the lease, and every file of entries is whole. serve is started anew at once, as its unit says.
func TestFollowKilled(t *testing.T) {
	inFull(t, func(t *testing.T, suite string) {
		c, servers := beside(t, suite, "idle")
		whole := c.entriesWithoutAddress()
		const lease = 30 * time.Second // the default
		restart := func(m *lab.Member) bool {
			time.Sleep(rand.N(1500 * time.Millisecond))
			servers[m.Name].kill()
			servers[m.Name] = c.serve(m)
			return true
		}
		for _, victim := range []struct {
			name string
			do   func(old *lab.Member) bool
		}{
			{"the keeper", func(old *lab.Member) bool { return c.killSoon([]*lab.Member{old}, "_keep", true, time.Second) }},
			{"the worker", func(old *lab.Member) bool { return c.killSoon(c.others(old), "_work", false, 300*time.Millisecond) }},
			{"the old leader's serve", restart},
			{"another member's serve", func(old *lab.Member) bool { return restart(c.others(old)[0]) }},
		} {
			killed := 0
			for range 3 {
				l, paused := c.load(), c.watchPaused()
				began := time.Now()
				old := c.leader()
				switched := make(chan error, 1)
				go func() {
					_, err := c.Switchover(c.ctx, "")
					switched <- err
				}()
				if victim.do(old) {
					killed++
				}
				c.must(<-switched)
				l.flowing(20)
				result := l.stop()
				held := paused()
				t.Logf("%s killed: %v, a pooler was paused for %s at most", victim.name, result.StallBetween(began, time.Now()), held)
				c.noErrors(result)
				if held > lease+time.Second {
					t.Errorf("a pooler was paused for %s, the lease is %s", held, lease)
				}
				c.healthy()
				c.asBefore()
				if now := c.entriesWithoutAddress(); fmt.Sprint(now) != fmt.Sprint(whole) {
					t.Errorf("a file of entries is not whole:\n%q\n%q", whole, now)
				}
			}
			if killed == 0 {
				t.Errorf("%s was over each time before it was killed", victim.name)
			}
		}
	})
}
