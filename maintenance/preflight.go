package maintenance

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/health"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/plan"
)

// judgedByPlans are findings that a plan judges better: it looks anew before each step, has options for what to do about it, and pauses the
// poolers itself where Patroni is too old to run a guard.
var judgedByPlans = []string{"single-member", "no-candidate", "parameter-differs", "maintenance-mode", "patroni-version"}

// Preflight looks, as pgbaton check --all does, for what would spoil the handovers of a plan, and returns the errors. A plan that leaves
// the primary alone has none. It changes nothing, and blocks for as long as [health.CheckAll] does.
func Preflight(ctx context.Context, m *member.Member, r Request, p plan.Plan) []api.Finding {
	if !slices.ContainsFunc(p.Steps, func(s plan.Step) bool { return s.Kind != plan.KindRestart }) {
		return nil
	}
	var found []api.Finding
	for _, f := range health.CheckAll(ctx, m).Findings {
		waitedFor := f.ID == "long-transaction" && r.MaxTransaction > 0
		if f.Severity == api.SeverityError && !slices.Contains(judgedByPlans, f.ID) && !waitedFor {
			found = append(found, f)
		}
	}
	return found
}

// Spoiled is the report that refuses a run for what [Preflight] has found; nil: nothing is in the way, or it cannot be planned at all,
// which [Run] says. It changes nothing.
func Spoiled(ctx context.Context, m *member.Member, r Request) *api.ClusterReport {
	p, err := Plan(ctx, m, r)
	if err != nil {
		return nil
	}
	found := Preflight(ctx, m, r, p)
	if len(found) == 0 {
		return nil
	}
	return &api.ClusterReport{Kind: r.Kind, Member: m.Name(), State: api.StepFailed, Code: member.Refused, Refusal: found[0].ID,
		Decision: SpoiledText(found), Steps: []api.StepReport{}}
}

// SpoiledText is the sentence that refuses a run for its findings.
func SpoiledText(found []api.Finding) string {
	var ids []string
	for _, f := range found {
		if !slices.Contains(ids, f.ID) {
			ids = append(ids, f.ID)
		}
	}
	return fmt.Sprintf("the handover would be spoiled (%s): nothing was done; pgbaton check says what to change", strings.Join(ids, ", "))
}
