package maintenance

import (
	"context"
	"strings"
	"sync"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/plan"
)

// lookAtLabels finds out which members are preferred: those that have the label (NAME=VALUE), or whose label differs from the primary's
// (NAME). A member's labels are told by its serve; who does not tell is not preferred. Without a preference, or where there will be no
// switchover from here, nobody is asked. It blocks for [member.StatusTimeout] at most.
func (s *scene) lookAtLabels(ctx context.Context, m *member.Member, r Request) {
	leader, _ := s.Leader()
	if r.Prefer == "" || r.FromHere && leader.Name != s.self {
		return
	}
	name, value, exact := strings.Cut(r.Prefer, "=")
	labels := s.labels(ctx, m)
	if !exact {
		var known bool
		if value, known = labels[leader.Name][name]; !known {
			m.Log.Warn("nobody is preferred: the primary's label is not known", "member", leader.Name, "label", name)
			return
		}
	}
	for i := range s.Members {
		p := &s.Members[i]
		its, known := labels[p.Name][name]
		p.Preferred = known && (its == value) == exact
	}
}

// labels are the members', by name. Own ones are read, the others' asked for.
func (s *scene) labels(ctx context.Context, m *member.Member) map[string]map[string]string {
	ctx, cancel := context.WithTimeout(ctx, member.StatusTimeout)
	defer cancel()
	var mu sync.Mutex
	found := map[string]map[string]string{}
	var all sync.WaitGroup
	ask := func(p plan.Member) (map[string]string, error) {
		if p.Name == s.self {
			return m.Labels()
		}
		client, done, err := member.ServeOf(m.Config.Members, s.members[p.Name].Member)
		if err != nil {
			return nil, err
		}
		defer done()
		status, err := client.Status(ctx)
		return status.Labels, err
	}
	for _, p := range s.Members {
		all.Go(func() {
			labels, err := ask(p)
			if err != nil {
				m.Log.Warn("the labels of a member are not known: it is not preferred", "member", p.Name, "error", err)
			}
			mu.Lock()
			defer mu.Unlock()
			found[p.Name] = labels
		})
	}
	all.Wait()
	return found
}
