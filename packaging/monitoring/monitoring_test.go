// Package monitoring_test holds monitoring/ against the program: Prometheus' own parser reads each expression, and what these name is what
// serve exposes, as docs/api.md lists it (a test in docs holds that list against the program). It is here so that Prometheus is no module
// of the product.
package monitoring_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"gopkg.in/yaml.v3"
)

const (
	root      = "../.."
	dashboard = root + "/monitoring/dashboard.json"
	alerts    = root + "/monitoring/alerts.yaml"
	cases     = root + "/monitoring/alerts_test.yaml"
)

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// scraped are the labels that Prometheus gives to every series, or a scrape configuration to those of a cluster.
var scraped = []string{"job", "instance"}

// exposed are serve's series and their labels, from the table in docs/api.md.
func exposed(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{
		// Prometheus' own, and the process collector's.
		"up": nil, "process_resident_memory_bytes": nil,
	}
	row := regexp.MustCompile("(?m)^\\| `(pgbaton_[a-z_]+)` \\| (counter|gauge|histogram) \\| ([^|]*)\\|")
	for _, m := range row.FindAllStringSubmatch(string(read(t, root+"/docs/api.md")), -1) {
		var own []string
		for _, label := range regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(m[3], -1) {
			own = append(own, label[1])
		}
		if m[2] != "histogram" {
			found[m[1]] = own
			continue
		}
		found[m[1]+"_sum"], found[m[1]+"_count"] = own, own
		found[m[1]+"_bucket"] = append([]string{"le"}, own...)
	}
	if len(found) < 20 {
		t.Fatalf("docs/api.md lists only %v", found)
	}
	return found
}

// checker collects which series the expressions name.
type checker struct {
	t       *testing.T
	exposed map[string][]string
	used    map[string]bool
}

// expression parses one as Prometheus does, and looks up its series and labels.
func (c *checker) expression(where, text string) {
	c.t.Helper()
	parsed, err := parser.ParseExpr(text)
	if err != nil {
		c.t.Errorf("%s: %s: %v", where, text, err)
		return
	}
	known := slices.Clone(scraped)
	series := 0
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		series++
		own, ok := c.exposed[selector.Name]
		if !ok {
			c.t.Errorf("%s: serve has no metric %q", where, selector.Name)
			return nil
		}
		c.used[selector.Name] = true
		known = append(known, own...)
		for _, m := range selector.LabelMatchers {
			if m.Name != labels.MetricName && !slices.Contains(scraped, m.Name) && !slices.Contains(own, m.Name) {
				c.t.Errorf("%s: %s has no label %q", where, selector.Name, m.Name)
			}
		}
		return nil
	})
	if series == 0 {
		c.t.Errorf("%s: %s asks for no metric", where, text)
	}
	// What is grouped or matched by has to be a label of one of them.
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		var names []string
		switch n := node.(type) {
		case *parser.AggregateExpr:
			names = n.Grouping
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				names = n.VectorMatching.MatchingLabels
			}
		}
		for _, name := range names {
			if !slices.Contains(known, name) {
				c.t.Errorf("%s: none of its metrics has the label %q", where, name)
			}
		}
		return nil
	})
}

type target struct {
	RefID        string
	Expr         string
	LegendFormat string
	Datasource   source
}

type source struct{ Type, UID string }

type board struct {
	UID, Title  string
	Annotations struct{ List []struct{ Name, Expr string } }
	Templating  struct {
		List []struct{ Name, Type, Definition string }
	}
	Panels []struct {
		ID                       int
		Type, Title, Description string
		GridPos                  struct{ X, Y, W, H int }
		Targets                  []target
		FieldConfig              struct{ Defaults struct{ Unit string } }
	}
}

// TestMonitoring: dashboard and alerts can be read by Prometheus, name only what there is, and leave out nothing.
func TestMonitoring(t *testing.T) {
	c := &checker{t, exposed(t), map[string]bool{}}
	c.dashboard()
	c.alerts()
	for name := range c.exposed {
		base := strings.TrimSuffix(name, "_sum")
		isPart := strings.HasSuffix(name, "_count") || strings.HasSuffix(name, "_sum") && c.used[base+"_bucket"]
		if !c.used[name] && !isPart {
			t.Errorf("neither the dashboard nor an alert shows %s", name)
		}
	}
}

func (c *checker) dashboard() {
	t := c.t
	var d board
	if err := json.Unmarshal(read(t, dashboard), &d); err != nil {
		t.Fatal(err)
	}
	if d.UID != "pgbaton" || d.Title == "" {
		t.Errorf("uid %q, title %q", d.UID, d.Title)
	}
	// As Grafana fills them in.
	variables := map[string]string{"$__rate_interval": "1m", "$__range": "6h"}
	for _, v := range d.Templating.List {
		variables["$"+v.Name] = ".+"
		if m := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`).FindStringSubmatch(v.Definition); m != nil {
			c.expression("variable "+v.Name, strings.ReplaceAll(m[1], "$job", ".+"))
			if !slices.Contains(scraped, m[2]) {
				t.Errorf("variable %s: label %s", v.Name, m[2])
			}
		} else if v.Type == "query" {
			t.Errorf("variable %s: %q", v.Name, v.Definition)
		}
	}
	variable := regexp.MustCompile(`\$\w+`)
	fill := func(where, text string) string {
		return variable.ReplaceAllStringFunc(text, func(name string) string {
			value, ok := variables[name]
			if !ok {
				t.Errorf("%s: no variable %s", where, name)
			}
			return value
		})
	}
	for _, a := range d.Annotations.List {
		c.expression("annotation "+a.Name, fill(a.Name, a.Expr))
	}
	taken := map[[2]int]string{}
	ids := map[int]bool{}
	for _, p := range d.Panels {
		if p.Title == "" || ids[p.ID] {
			t.Errorf("panel %d has the title %q", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s lies on %q, or beyond the edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
			t.Errorf("%s: description %q, unit %q, %d targets", p.Title, p.Description, p.FieldConfig.Defaults.Unit, len(p.Targets))
		}
		for _, q := range p.Targets {
			if q.Datasource.UID != "${datasource}" {
				t.Errorf("%s: its data source is %q", p.Title, q.Datasource.UID)
			}
			c.expression(p.Title, fill(p.Title, q.Expr))
		}
	}
	if len(d.Panels) < 10 {
		t.Errorf("only %d panels", len(d.Panels))
	}
}

func (c *checker) alerts() {
	t := c.t
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(read(t, alerts), &file); err != nil {
		t.Fatal(err)
	}
	page := string(read(t, root+"/docs/monitoring.md"))
	tests := string(read(t, cases))
	n := 0
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			n++
			c.expression(rule.Alert, rule.Expr)
			if !strings.Contains(page, "`"+rule.Alert+"`") {
				t.Errorf("docs/monitoring.md does not explain %s", rule.Alert)
			}
			if !strings.Contains(tests, rule.Alert) {
				t.Errorf("no case of alerts_test.yaml is about %s", rule.Alert)
			}
		}
	}
	if listed := strings.Count(page, "| `Pgbaton"); listed != n {
		t.Errorf("docs/monitoring.md lists %d alerts, there are %d", listed, n)
	}
}

// TestAlerts: Prometheus' own tool runs the cases.
func TestAlerts(t *testing.T) {
	out, err := exec.Command(root + "/scripts/promtool.sh").Output()
	if err != nil {
		t.Fatalf("promtool.sh: %v", err)
	}
	promtool := strings.TrimSpace(string(out))
	for _, args := range [][]string{{"check", "rules", alerts}, {"test", "rules", cases}} {
		if said, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, said)
		}
	}
}
