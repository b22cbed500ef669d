package lab

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Restart is a time for which one member's PostgreSQL took no connections, by its own log.
type Restart struct {
	Member    string
	Down, Up  time.Time // Up is zero: it is still down. Down is zero: it was down before the time line begins
	Primary   bool      // it came back as primary
	Requested bool      // it was asked to stop; false: its log says nothing of how it ended
}

func (r Restart) String() string {
	as := "replica"
	if r.Primary {
		as = "primary"
	}
	return fmt.Sprintf("%s %s–%s as %s", r.Member, r.Down.Format("15:04:05.000"), r.Up.Format("15:04:05.000"), as)
}

// Overlaps tells whether both servers were down at one moment.
func (r Restart) Overlaps(other Restart) bool {
	endsBefore := func(a, b Restart) bool { return !a.Up.IsZero() && !a.Up.After(b.Down) }
	return !endsBefore(r, other) && !endsBefore(other, r)
}

// Course is what a time line says of which server was down when, and who was promoted.
type Course struct {
	Restarts   []Restart // by Down
	Promotions []Promotion
}

// Promotion is a replica that became primary.
type Promotion struct {
	Member string
	At     time.Time
}

// The texts are those of PostgreSQL 15 to 18.
const (
	textStop      = "received fast shutdown request"
	textImmediate = "received immediate shutdown request"
	textDown      = "database system is shut down"
	textStart     = "starting PostgreSQL "
	textPrimary   = "database system is ready to accept connections"
	textReplica   = "database system is ready to accept read-only connections"
	textPromotion = "selected new timeline ID"
)

// CourseOf reads a time line.
func CourseOf(events []Event) Course {
	var c Course
	open := map[string]*Restart{}
	for _, e := range events {
		member, log, _ := strings.Cut(e.Source, " ")
		if log != "postgresql" {
			continue
		}
		says := func(text string) bool { return strings.Contains(e.Text, text) }
		down := open[member]
		switch {
		case says(textStop), says(textImmediate):
			if down == nil {
				open[member] = &Restart{Member: member, Down: e.At, Requested: true}
			}
		case says(textDown), says(textStart):
			// A server that was killed says nothing before it starts again.
			if down == nil {
				open[member] = &Restart{Member: member, Down: e.At}
			}
		case says(textPromotion):
			if down == nil { // otherwise it is a server that ends its crash recovery or a start as primary
				c.Promotions = append(c.Promotions, Promotion{member, e.At})
			}
		case says(textPrimary), says(textReplica):
			if down != nil {
				down.Up, down.Primary = e.At, says(textPrimary)
				c.Restarts = append(c.Restarts, *down)
				delete(open, member)
			}
		}
	}
	for _, down := range open {
		c.Restarts = append(c.Restarts, *down)
	}
	slices.SortFunc(c.Restarts, func(a, b Restart) int { return a.Down.Compare(b.Down) })
	return c
}

// Together are restarts during which another member was down, too.
func (c Course) Together() []Restart {
	var all []Restart
	for i, r := range c.Restarts {
		for j, other := range c.Restarts {
			if i != j && r.Member != other.Member && r.Overlaps(other) {
				all = append(all, r)
				break
			}
		}
	}
	return all
}

// Order is the course as words: "m2 m3 m1 >m2": who went down, and who was promoted.
func (c Course) Order() string {
	type word struct {
		at   time.Time
		text string
	}
	var words []word
	for _, r := range c.Restarts {
		words = append(words, word{r.Down, r.Member})
	}
	for _, p := range c.Promotions {
		words = append(words, word{p.At, ">" + p.Member})
	}
	slices.SortStableFunc(words, func(a, b word) int { return a.at.Compare(b.at) })
	var texts []string
	for _, w := range words {
		texts = append(texts, w.text)
	}
	return strings.Join(texts, " ")
}
