package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/pgbaton/pgbaton/cmd/pgbaton/clidoc"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"For this shell: ${enum}."`
}

// Help is shown below the flags, and in the man page.
func (*completionCmd) Help() string {
	return "To use it at once: source <(pgbaton completion bash), source <(pgbaton completion zsh) after compinit, " +
		"pgbaton completion fish | source. The packages install it for all three shells."
}

func (c *completionCmd) Run(p *program) error {
	_, err := fmt.Fprint(p.stdout, clidoc.Completion(p.args.Model, c.Shell))
	return err
}

// pagesCmd writes what the packages have beside the program. make packages runs it; people do not.
type pagesCmd struct {
	Dir string `arg:"" help:"Directory for man1 and completion."`
}

func (c *pagesCmd) Run(p *program) error {
	files := map[string]string{}
	for name, page := range clidoc.Man(p.args.Model, buildVersion(), manSections()...) {
		files[filepath.Join("man1", name)] = page
	}
	for _, shell := range clidoc.Shells() {
		files[filepath.Join("completion", "pgbaton."+shell)] = clidoc.Completion(p.args.Model, shell)
	}
	for name, text := range files {
		path := filepath.Join(c.Dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func manSections() []clidoc.Section {
	return []clidoc.Section{
		{Title: "EXIT STATUS", Items: [][2]string{
			{"0", "Done, or nothing to do."},
			{"1", "Failed."},
			{"2", "Usage or configuration."},
			{"3", "The budget is spent; the policy (pause.on_timeout) was applied."},
			{"4", "Refused: the preconditions are not met."},
		}},
		{Title: "FILES", Items: [][2]string{
			{
				"/etc/pgbaton/pgbaton.yaml",
				"The configuration, where --config, PGBATON_CONFIG and a pgbaton.yaml beside the program name no other.",
			},
			{"/run/pgbaton", "Leases, locks and the journal (state_dir)."},
		}},
	}
}
