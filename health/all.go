package health

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/patroni"
	"github.com/pgbaton/pgbaton/peer"
)

const (
	// othersTimeout bounds what the other members take: a check, behind one that is under way.
	othersTimeout = 2 * checkTimeout
	maxFindings   = 1000 // of one member
)

// answer is what another member has found.
type answer struct {
	member string
	report api.CheckReport
	err    error
}

// CheckAll is [Check] on every member of the cluster: this one makes its own, and the others theirs, over their serve (members in the
// configuration). What several have found is one finding. Who could not be asked is a finding, too. It changes nothing, and blocks until
// all have answered, 12 s at most.
func CheckAll(ctx context.Context, m *member.Member) api.CheckReport {
	own, v := check(ctx, m)
	var others []patroni.Member
	if v.further.cluster != nil {
		others = slices.DeleteFunc(slices.Clone(v.further.cluster.Members), func(x patroni.Member) bool { return x.Name == v.name() })
	}
	answers := ask(ctx, m.Config.Members, others)
	return merge(own, answers)
}

// ask has the others make their checks, all at once.
func ask(ctx context.Context, c config.Members, others []patroni.Member) []answer {
	ctx, cancel := context.WithTimeout(ctx, othersTimeout)
	defer cancel()
	answers := make([]answer, len(others))
	var all sync.WaitGroup
	for i, x := range others {
		all.Go(func() {
			answers[i] = answer{member: x.Name}
			client, done, err := member.ServeOf(c, x)
			if err == nil {
				defer done()
				answers[i].report, err = client.Check(ctx)
			}
			answers[i].err = err
		})
	}
	all.Wait()
	return answers
}

// merge makes one report of all. The findings keep their order, this member's first.
func merge(own api.CheckReport, others []answer) api.CheckReport {
	known := kinds()
	all := api.CheckReport{Member: own.Member, Scope: own.Scope, OK: true}
	at := map[string]int{}
	take := func(from string, findings []api.Finding) {
		for _, f := range findings[:min(len(findings), maxFindings)] {
			key := f.ID + "\x00" + f.Subject
			if !slices.Contains(measured(), f.ID) {
				key += "\x00" + f.Found
			}
			i, seen := at[key]
			if !seen {
				i = len(all.Findings)
				at[key] = i
				all.Findings = append(all.Findings, f)
			}
			if seenFrom := &all.Findings[i].SeenFrom; !slices.Contains(*seenFrom, from) {
				*seenFrom = append(*seenFrom, from)
			}
		}
	}
	take(own.Member, own.Findings)
	all.Members = append(all.Members, api.MemberCheck{Member: own.Member, OK: own.OK})
	var missed []api.Finding
	for _, a := range others {
		name := peer.Text(a.member)
		checked := api.MemberCheck{Member: name, OK: a.err == nil}
		if a.err != nil {
			f := findings{kinds: known}
			checked.Error = peer.Text(a.err.Error())
			change := "run pgbaton check on it; or let pgbaton serve run there, and look at members in the configuration file here"
			if errors.Is(a.err, member.ErrNoMembersURL) {
				change = "run pgbaton check on it; or let pgbaton serve run there, and set members.url in the configuration file here"
			}
			f.add("member-not-checked", name, change, "member %s: its own check was not made: %v", name, a.err)
			missed = append(missed, f.list...)
		}
		theirs := make([]api.Finding, 0, len(a.report.Findings))
		for _, f := range a.report.Findings {
			f = foreign(f, known)
			checked.OK = checked.OK && f.Severity != api.SeverityError
			theirs = append(theirs, f)
		}
		take(name, theirs)
		all.Members = append(all.Members, checked)
	}
	take(own.Member, missed)
	finish(&all)
	return all
}

// measured are the findings whose text has a figure that changes from look to look: the subject tells them apart.
func measured() []string {
	return []string{"replica-lag", "long-transaction", "prepared-transaction", "archive-failing", "archive-backlog"}
}

// foreign is a finding as another member's serve has sent it, of whatever version. An id that is known here has the severity of here.
func foreign(f api.Finding, known map[string]kind) api.Finding {
	f.ID, f.Subject, f.Found = peer.Text(f.ID), peer.Text(f.Subject), peer.Text(f.Found)
	f.Why, f.Change, f.SeenFrom = peer.Text(f.Why), peer.Text(f.Change), nil
	if k, ok := known[f.ID]; ok {
		f.Severity = k.severity
	}
	if f.Severity != api.SeverityError {
		f.Severity = api.SeverityWarning
	}
	return f
}
