package health

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/state"
)

const conditionsName = "conditions.json"

// conditions judges the status, and keeps since when each one has been so. A status that was cut short is not kept: who did not answer in
// time may have been about to.
func (s *Status) conditions(m *member.Member, whole bool) {
	s.Conditions = judgeConditions(*s)
	path := ""
	var before []api.Condition
	if m.Config.StateDir != "" {
		path = filepath.Join(m.Config.StateDir, conditionsName)
		_ = state.Read(path, &before) // none yet, or torn by another version: everything is new
	}
	if since(s.Conditions, before, time.Now()) && whole && path != "" && !m.DryRun {
		// Without the messages, which are others' and of any length: what is larger than a state file would not be read back.
		kept := slices.Clone(s.Conditions)
		for i := range kept {
			kept[i].Message = ""
		}
		if err := state.Write(path, kept); err != nil {
			m.Log.Debug("conditions are not kept", "error", err)
		}
	}
}

// since carries over when each status began, and reports whether one has changed.
func since(conditions, before []api.Condition, now time.Time) (changed bool) {
	for i := range conditions {
		c := &conditions[i]
		c.LastTransitionTime = now.UTC().Truncate(time.Second)
		at := slices.IndexFunc(before, func(b api.Condition) bool { return b.Type == c.Type })
		if at >= 0 && before[at].Status == c.Status && before[at].LastTransitionTime.Before(now) {
			c.LastTransitionTime = before[at].LastTransitionTime
			continue
		}
		changed = true
	}
	return changed
}

func judgeConditions(s Status) []api.Condition {
	var paused, foreign []string
	unreachable := slices.Clone(s.Unresolved)
	for _, p := range s.Poolers {
		switch {
		case p.Error != "":
			unreachable = append(unreachable, p.Pooler+": "+p.Error)
		case p.PausedBy != "" && p.PausedBy != pgb.Foreign.String():
			paused = append(paused, p.Pooler+" by "+p.PausedBy)
		case p.Paused == "yes", len(p.Databases) > 0:
			foreign = append(foreign, p.Pooler)
		}
	}
	progressing := api.Condition{Type: api.ConditionProgressing, Status: "False", Reason: "Idle"}
	switch {
	case len(paused) > 0:
		progressing = api.Condition{
			Type:    api.ConditionProgressing,
			Status:  "True",
			Reason:  "PoolersPaused",
			Message: "paused: " + strings.Join(paused, ", "),
		}
	case slices.ContainsFunc(s.Leases, func(l api.LeaseStatus) bool { return time.Now().Before(l.Until) }):
		progressing = api.Condition{
			Type:    api.ConditionProgressing,
			Status:  "True",
			Reason:  "LeaseRunning",
			Message: "a pause of this member has a lease",
		}
	}
	degraded := api.Condition{Type: api.ConditionDegraded, Status: "False", Reason: "AsExpected"}
	bad := func(reason, message string) {
		if degraded.Status != "True" {
			degraded = api.Condition{Type: api.ConditionDegraded, Status: "True", Reason: reason, Message: message}
		}
	}
	switch {
	case s.WritableWithoutLock:
		bad("WritableWithoutLock", "this server is writable and Patroni does not hold the leader lock")
	case len(unreachable) > 0:
		bad("PoolerUnreachable", strings.Join(unreachable, "; "))
	case len(foreign) > 0:
		bad("PausedByOthers", "paused, and not by pgbaton: "+strings.Join(foreign, ", "))
	case s.Patroni.Error != "":
		bad("PatroniUnreachable", s.Patroni.Error)
	case s.Server.Error != "":
		bad("ServerUnreachable", s.Server.Error)
	}
	valid := api.Condition{Type: api.ConditionValid, Status: "True", Reason: "Loaded"}
	if s.Invalid {
		valid = api.Condition{Type: api.ConditionValid, Status: "False", Reason: "Invalid", Message: strings.Join(s.Problems, "; ")}
	}
	ready := api.Condition{Type: api.ConditionReady, Status: "True", Reason: "AllAnswer"}
	switch {
	case degraded.Status == "True":
		ready = api.Condition{Type: api.ConditionReady, Status: "False", Reason: degraded.Reason, Message: degraded.Message}
	case s.Invalid:
		ready = api.Condition{Type: api.ConditionReady, Status: "False", Reason: "ConfigurationInvalid", Message: valid.Message}
	case len(s.Poolers) == 0:
		ready = api.Condition{Type: api.ConditionReady, Status: "False", Reason: "NoPoolers", Message: "no poolers are configured"}
	case progressing.Status == "True":
		ready = api.Condition{Type: api.ConditionReady, Status: "False", Reason: progressing.Reason, Message: progressing.Message}
	}
	return []api.Condition{ready, progressing, degraded, valid, appliedCondition(s.Versions)}
}

// appliedCondition compares what is wanted with what runs. A version that nobody can see is unknown, not wrong.
func appliedCondition(versions []api.VersionReport) api.Condition {
	c := api.Condition{
		Type:    api.ConditionApplied,
		Status:  "Unknown",
		Reason:  "NoVersionSource",
		Message: "set versions in the configuration file",
	}
	var observed, behind, unknown []string
	for _, v := range versions {
		switch {
		case v.Error != "":
			unknown = append(unknown, v.Target+": "+v.Error)
		case v.Seen == nil, v.Applied == nil:
			unknown = append(unknown, v.Target)
		case *v.Applied < *v.Seen:
			behind = append(behind, fmt.Sprintf("%s runs %d, %d is wanted", v.Target, *v.Applied, *v.Seen))
		}
		if v.Applied != nil {
			observed = append(observed, fmt.Sprintf("%s=%d", v.Target, *v.Applied))
		}
	}
	switch {
	case len(behind) > 0:
		c = api.Condition{Type: api.ConditionApplied, Status: "False", Reason: "ReloadNeeded", Message: strings.Join(behind, "; ")}
	case len(unknown) > 0:
		c = api.Condition{Type: api.ConditionApplied, Status: "Unknown", Reason: "VersionUnknown", Message: strings.Join(unknown, "; ")}
	case len(versions) > 0:
		c = api.Condition{Type: api.ConditionApplied, Status: "True", Reason: "UpToDate"}
	}
	c.ObservedVersion = strings.Join(observed, ",")
	return c
}
