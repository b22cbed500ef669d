package health

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/patroni"
)

// callbacks are the events that pgbaton needs, on_role_change first.
func callbacks() []string { return []string{"on_role_change", "on_start", "on_restart", "on_stop"} }

// dynamicHooks are those of the cluster's configuration (GET /config).
func dynamicHooks(d patroni.Dynamic) config.PatroniHooks {
	var hooks config.PatroniHooks
	server, _ := d.Raw["postgresql"].(map[string]any)
	hooks.BeforeStop, _ = server["before_stop"].(string)
	if all, ok := server["callbacks"].(map[string]any); ok {
		hooks.Callbacks = map[string]string{}
		for event, program := range all {
			if text, ok := program.(string); ok {
				hooks.Callbacks[event] = text
			}
		}
	}
	return hooks
}

// effectiveHooks are those by which Patroni goes: a key of its local configuration replaces the cluster's, the callbacks as a whole
// (config.py, _build_effective_configuration, 3.0 to 4.1).
func effectiveHooks(local, dynamic config.PatroniHooks) config.PatroniHooks {
	hooks := local
	if hooks.BeforeStop == "" {
		hooks.BeforeStop = dynamic.BeforeStop
	}
	if hooks.Callbacks == nil {
		hooks.Callbacks = dynamic.Callbacks
	}
	return hooks
}

func misplaced(f *findings) {
	f.add("hooks-misplaced", "postgresql.callbacks.before_stop",
		"move it one level up: postgresql.before_stop, beside callbacks, and patronictl reload",
		"before_stop stands under postgresql.callbacks in Patroni's configuration")
}

func judgeHooks(f *findings, v view) {
	seen := v.further.hooks
	hooks := effectiveHooks(seen.local, dynamicHooks(v.dynamic))
	var missing, incomplete []string
	switch {
	case hooks.BeforeStop != "":
	case hooks.Callbacks["before_stop"] != "":
		misplaced(f)
	default:
		missing = append(missing, "postgresql.before_stop: /callbacks/before_stop")
	}
	for _, event := range callbacks() {
		line := "postgresql.callbacks." + event + ": /callbacks/on_role_change"
		switch {
		case hooks.Callbacks[event] != "":
		case event == "on_role_change":
			missing = append(missing, line)
		default:
			incomplete = append(incomplete, line)
		}
	}
	if len(missing)+len(incomplete) > 0 && (seen.err != nil || v.patroniErr != nil) {
		f.add("hooks-not-visible", "patroni.config", "run pgbaton check as Patroni's user, or set patroni.config in the configuration "+
			"file to Patroni's own file",
			"it cannot be seen whether Patroni runs all hooks: %v", cmp.Or(seen.err, v.patroniErr))
	} else {
		const where = " in Patroni's local file, then patronictl reload; or for all members with patronictl edit-config"
		if len(missing) > 0 {
			f.add("hooks-missing", "postgresql", "set "+strings.Join(missing, ", ")+where, "Patroni does not run: %s", keysOf(missing))
		}
		if len(incomplete) > 0 {
			f.add("hooks-incomplete", "postgresql.callbacks", "set "+strings.Join(incomplete, ", ")+where, "Patroni does not run: %s",
				keysOf(incomplete))
		}
	}
	for _, command := range slices.Sorted(maps.Keys(seen.programs)) {
		switch program := seen.programs[command]; {
		case program.problem != "":
			f.add("hooks-program", command, "pgbaton install "+folderOf(command), "Patroni is to run %s: %s", command, program.problem)
		case program.other:
			f.add("hooks-other-program", command, "let it be a link to pgbaton: pgbaton install "+folderOf(command),
				"Patroni runs %s, which is another program than this one", command)
		}
	}
}

// keysOf leaves out what the lines set.
func keysOf(lines []string) string {
	keys := make([]string, len(lines))
	for i, line := range lines {
		keys[i], _, _ = strings.Cut(line, ":")
	}
	return strings.Join(keys, ", ")
}

func folderOf(command string) string {
	if i := strings.LastIndexByte(command, '/'); i > 0 {
		return command[:i]
	}
	return "/"
}

func judgeInit(f *findings, v view) {
	i := v.further.init
	switch {
	case i.postmasterErr != nil:
		if v.serverErr == nil && v.config.Pause.StopServer {
			f.add("postmaster-not-visible", "postgres", "run the hooks as the server's user in its container (a shared pid namespace), "+
				"and postgres: over the Unix socket",
				"the server's process cannot be seen from here: %v", i.postmasterErr)
		}
	case i.zombie && i.adopts == i.above:
		f.add("init-does-not-reap", i.name, "start the container with an init (docker run --init, tini, dumb-init), or Patroni itself as "+
			"process 1",
			"process %d (%s), the parent of PostgreSQL, does not reap: an orphan of ours that it inherited stays a zombie", i.above, i.name)
	}
}
