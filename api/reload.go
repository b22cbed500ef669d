package api

import (
	"fmt"
	"time"

	"github.com/pgbaton/pgbaton/configversion"
	"github.com/pgbaton/pgbaton/file"
)

// What Reload can reload.
const (
	TargetPostgres  = "postgres"
	TargetPgBouncer = "pgbouncer"
	TargetAll       = "all"
)

// Names of what may stop a reload, for programs. They are the ends of the problem types of the HTTP mode.
const (
	ProblemVersionTimeout = "config-version-timeout" // it did not arrive in time; nothing was reloaded
	ProblemVersionInvalid = "config-version-invalid" // what should be a version is none, or cannot be read
	ProblemHandover       = "handover-in-progress"   // it lasted longer than the timeout
	ProblemNotApplied     = "not-applied"            // reloaded, and something did not take
	ProblemNotVerified    = "not-verified"           // reloaded, and whether it took cannot be seen though it should be
	ProblemUnreachable    = "unreachable"            // who should reload does not answer
	ProblemInvalidFile    = "invalid-configuration-file"
)

// VersionReport is where a configuration version stands.
type VersionReport struct {
	Target  string                 `json:"target"`            // postgres or pgbouncer
	Source  string                 `json:"source"`            // where it is looked for
	Asked   *configversion.Version `json:"asked,omitempty"`   // by --config-version
	Seen    *configversion.Version `json:"seen,omitempty"`    // at the source
	OnDisk  *configversion.Version `json:"onDisk,omitempty"`  // in the files that the program reads
	Applied *configversion.Version `json:"applied,omitempty"` // in the running program; of PgBouncer, what the last reload has verified
	Error   string                 `json:"error,omitempty"`
}

// ReloadReport is the outcome for every target.
type ReloadReport struct {
	Problem  string          `json:"problem,omitempty"` // the first one's name, a Problem constant; "" when all went well
	Postgres *PostgresReload `json:"postgres,omitempty"`
	Poolers  []PoolerReload  `json:"poolers,omitempty"`
	Versions []VersionReport `json:"versions,omitempty"`
}

// Outcomes of a reload of one program.
const (
	ReloadDone     = "reloaded"
	ReloadSignaled = "signalled" // told to, by a signal, and nobody can see whether it did
	ReloadFailed   = "failed"
	ReloadNot      = "not reloaded"
	ReloadWould    = "would reload"
)

// PostgresReload is what became of this member's server.
type PostgresReload struct {
	Done           string           `json:"done"`
	How            string           `json:"how,omitempty"` // "POST /reload", "patronictl reload", "SIGHUP to process 7"
	Verified       bool             `json:"verified"`
	LoadedBefore   time.Time        `json:"loadedBefore,omitzero"` // pg_conf_load_time() before and after
	Loaded         time.Time        `json:"loaded,omitzero"`
	FileErrors     []FileError      `json:"fileErrors,omitempty"`
	PendingRestart []PendingSetting `json:"pendingRestart,omitempty"`
	Error          string           `json:"error,omitempty"`
}

// FileError is a line of a configuration file that was not taken.
type FileError file.Problem

// String is one line: file:line: name: problem.
func (e FileError) String() string { return file.Problem(e).String() }

// PendingSetting is a setting that takes effect with the next restart.
type PendingSetting struct {
	Name    string `json:"name"`
	Running string `json:"running,omitempty"`
	File    string `json:"file,omitempty"`
}

// PoolerReload is what became of one pooler.
type PoolerReload struct {
	Pooler       string              `json:"pooler"`
	Done         string              `json:"done"`
	How          string              `json:"how,omitempty"`  // "RELOAD", "SIGHUP to process 7"
	File         string              `json:"file,omitempty"` // what the running settings were compared with
	Verified     bool                `json:"verified"`
	NotVerified  string              `json:"notVerified,omitempty"` // why not
	Changed      []SettingDifference `json:"changed,omitempty"`     // by this reload
	NotApplied   []SettingDifference `json:"notApplied,omitempty"`  // the file says otherwise
	NeedsRestart []SettingDifference `json:"needsRestart,omitempty"`
	Error        string              `json:"error,omitempty"`
}

// SettingDifference is a setting with two values.
type SettingDifference struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Key     string `json:"key"`
	Want    string `json:"want"`              // in the file; after the reload
	Running string `json:"running"`           // in the pooler; before the reload
	Problem string `json:"problem,omitempty"` // why PgBouncer cannot take it
}

func (d SettingDifference) String() string {
	at := ""
	if d.Line > 0 {
		at = fmt.Sprintf("%s:%d: ", d.File, d.Line)
	}
	text := fmt.Sprintf("%s%s is %q in the file and %q in the pooler", at, d.Key, d.Want, d.Running)
	if d.Problem != "" {
		text += " (" + d.Problem + ")"
	}
	return text
}
