package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// readmeConfig is the pgbaton.yaml that the README tells people to write, as its sections. What a lab needs otherwise:
//   - patroni.url: the members of a lab share this machine's loopback, so each has an address of its own in place of 127.0.0.1;
//   - state_dir, where the README leaves it out: a lab's /run/pgbaton is the container's own, and a test can read it.
func readmeConfig() ([]string, error) {
	readme, err := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil {
		return nil, err
	}
	block := regexp.MustCompile("(?ms)^```yaml\n# pgbaton.yaml\n(.*?)^```$").FindSubmatch(readme)
	if block == nil {
		return nil, errors.New("README.md has no pgbaton.yaml")
	}
	text := string(block[1])
	if !strings.Contains(text, "http://127.0.0.1:8008") {
		return nil, errors.New("README.md has another address of Patroni than this machine's")
	}
	text = strings.Replace(text, "http://127.0.0.1:8008", "http://${HOSTNAME}:8008", 1)
	var sections []string
	for line := range strings.Lines(text) {
		if line[0] == ' ' && len(sections) > 0 {
			sections[len(sections)-1] += line
		} else {
			sections = append(sections, line)
		}
	}
	if !slices.ContainsFunc(sections, func(s string) bool { return sectionName(s) == "state_dir" }) {
		sections = append(sections, "state_dir: /run/pgbaton\n")
	}
	return sections, nil
}

func sectionName(section string) string {
	name, _, _ := strings.Cut(section, ":")
	return name
}

// overlay puts whole sections in the place of those of the same name, or behind them.
func overlay(sections []string, over ...string) string {
	sections = slices.Clone(sections)
	for _, s := range over {
		sections = slices.DeleteFunc(sections, func(other string) bool { return sectionName(other) == sectionName(s) })
		sections = append(sections, strings.TrimSuffix(s, "\n")+"\n")
	}
	return strings.Join(sections, "")
}

// configure writes pgbaton.yaml and the password files beside it: the README's, with settings as whole sections in place of its own.
func (c *cluster) configure(settings ...string) error {
	sections, err := readmeConfig()
	if err != nil {
		return err
	}
	return firstError(
		c.write("pgbaton.yaml", overlay(sections, settings...)),
		c.write("pgbouncer-admin-password", c.AdminPassword+"\n"),
		c.write("pgpass", "*:*:*:postgres:"+c.SuperuserPassword+"\n"),
	)
}

// yaml writes a configuration of its own for one case and returns its path in a member: the README's without its poolers, with settings as
// whole sections in place of its own.
func (c *cluster) yaml(settings ...string) string {
	c.t.Helper()
	sections, err := readmeConfig()
	c.must(err)
	sections = slices.DeleteFunc(sections, func(s string) bool { return sectionName(s) == "poolers" })
	file := strings.NewReplacer("/", "-", " ", "-").Replace(c.t.Name()) + ".yaml"
	c.must(c.write(file, overlay(sections, settings...)))
	return "/callbacks/" + file
}

// poolersYAML is the section of one pooler, or of a name of several.
func poolersYAML(host string, port int, passwordFile string, more ...string) string {
	dsn := fmt.Sprintf("dsn: postgres://pgbouncer_admin@%s:%d/pgbouncer", host, port)
	entry := append([]string{dsn, "password_file: " + passwordFile}, more...)
	return "poolers:\n  - " + strings.Join(entry, "\n    ")
}
