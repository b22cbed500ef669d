// Package seen is what clients of a database have seen, as the probe in a pod tells it to the test.
package seen

import (
	"fmt"
	"sort"
	"strings"
	"time"
)

// long is the shortest gap between two commits of a client that is worth a word.
const long = 100 * time.Millisecond

// Report is what a probe says at its end.
type Report struct {
	Acknowledged, Lost int
	Clients            []Client
}

// Client is one connection after the other, of one client.
type Client struct {
	Gaps   []Gap
	Errors []Error
}

// Gap is a time without a commit, between two or before the end.
type Gap struct{ From, To time.Time }

// Length is how long the client had to wait.
func (g Gap) Length() time.Duration { return g.To.Sub(g.From) }

// Error is what a client was told, or how it was cut off.
type Error struct {
	At   time.Time
	Text string
}

// Add remembers the time between two commits, if it was long.
func (c *Client) Add(from, to time.Time) {
	if g := (Gap{from, to}); g.Length() >= long {
		c.Gaps = append(c.Gaps, g)
	}
}

// Longest is the longest gap of any client that overlaps the time between two moments; zero where none was long.
func (r Report) Longest(from, to time.Time) (longest Gap) {
	for _, c := range r.Clients {
		for _, g := range c.Gaps {
			if g.From.Before(to) && g.To.After(from) && g.Length() > longest.Length() {
				longest = g
			}
		}
	}
	return longest
}

// Errors are all errors, in order of time, as text.
func (r Report) Errors() []string {
	var all []Error
	for _, c := range r.Clients {
		all = append(all, c.Errors...)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].At.Before(all[j].At) })
	var texts []string
	for _, e := range all {
		texts = append(texts, fmt.Sprintf("%s %s", e.At.UTC().Format("15:04:05.000"), strings.ReplaceAll(e.Text, "\n", " ")))
	}
	return texts
}
