// Package seen is what clients of a database on Kubernetes have seen, as the probe in a pod tells it to the tests, and they to the demo.
package seen

import (
	"fmt"
	"sort"
	"strings"
	"time"
)

// long is the shortest gap between two commits of a client that is worth a word.
const long = 100 * time.Millisecond

// Width is the piece of time in which commits are counted.
const Width = 100 * time.Millisecond

// Report is what a probe says at its end.
type Report struct {
	Acknowledged, Lost int
	Clients            []Client
	Began              time.Time
	Commits            []int // of all clients, in pieces of Width since Began
}

// Client is one connection after the other, of one client.
type Client struct {
	Gaps    []Gap
	Errors  []Error
	commits []time.Time
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

// Committed remembers when a commit was acknowledged, and the time since the one before, if it was long.
func (c *Client) Committed(before, at time.Time) {
	c.commits = append(c.commits, at)
	c.Add(before, at)
}

// Count counts the commits of all clients since a moment.
func (r *Report) Count(began time.Time) {
	r.Began, r.Commits = began, nil
	for _, c := range r.Clients {
		for _, at := range c.commits {
			i := int(at.Sub(began) / Width)
			for len(r.Commits) <= i {
				r.Commits = append(r.Commits, 0)
			}
			r.Commits[i]++
		}
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

// Demo is what the demo on Kubernetes has to tell: see e2e/demo, which makes a report of it.
type Demo struct {
	Versions map[string]string
	Load     string
	Clients  Report
	Events   []Event
}

// Event is one thing that was done to the cluster.
type Event struct {
	Name, From, To string // To: who leads then
	Asked, Ended   time.Time
	Lines          []Line // of the servers' logs
}

// Line is one of a log.
type Line struct {
	At           time.Time
	Source, Text string
}
