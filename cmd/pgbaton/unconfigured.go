package main

import (
	"log/slog"

	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/state"
)

// withoutConfig is what comes of it when a hook of Patroni's cannot read its configuration; "" where the command is no hook. Patroni only
// notes the exit code, and people look when clients have failed.
func withoutConfig(command string) string {
	switch command {
	case "before_stop":
		return "no pooler is paused, so clients get errors when the server stops"
	case "on_role_change":
		return "no pooler is resumed here, and the next stop of this server will find no pooler to pause"
	}
	return ""
}

// told is an error that was logged already.
type told struct{ error }

func (e told) Unwrap() error { return e.error }

// tellUnconfigured logs what comes of it, and leaves it in the journal, where the file names a state directory that can be used: serve
// counts it as a failed handover, and status shows it.
func tellUnconfigured(log *slog.Logger, stateDir, hook string, err error, dryRun bool) {
	decision := "the configuration cannot be used: " + withoutConfig(hook)
	log.Error(hook+" ends: "+decision, "hook", hook, "member", member.Name(), "error", oneLine(err.Error()), "code", member.Invalid)
	if stateDir == "" || dryRun {
		return
	}
	event := state.EventReleased
	if hook != "before_stop" {
		event = state.EventEnded
	}
	journal := state.Dir{Path: stateDir, Log: log}.Journal(member.Name(), hook, state.NewID())
	journal.Add(state.Entry{Event: event, Code: member.Invalid, Text: decision + ": " + oneLine(err.Error())})
	journal.Sync()
}
