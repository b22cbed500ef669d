package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A handover is shorter than any scrape interval that people have; here it is the shortest that makes sense, so that the picture shows it.
const (
	scrapeInterval = time.Second
	rateInterval   = 4 * scrapeInterval // as Grafana chooses it
	quiet          = 12 * time.Second   // before, between and after what is done
)

// board is what is used of monitoring/dashboard.json.
type board struct {
	Title       string
	Annotations struct{ List []struct{ Name, Expr string } }
	Panels      []panelSpec
}

type panelSpec struct {
	Type, Title string
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct {
		Expr, LegendFormat string
		Instant            bool
	}
	FieldConfig struct {
		Defaults struct {
			Unit, NoValue string
			Mappings      []struct {
				Options map[string]struct{ Text string }
			}
		}
	}
}

// series is one line of a panel.
type series struct {
	legend string
	points []point
}

type point struct {
	at    time.Time
	value float64
}

// drawn is a panel with what Prometheus has answered.
type drawn struct {
	panelSpec
	series []series
}

// picture makes a picture of the dashboard: it starts a cluster with serve on every member, has a Prometheus scrape these during a
// switchover and a restart of the primary under load, asks it each panel's own queries, and draws what it answers.
func (d *demo) picture(ctx context.Context, file string) error {
	return d.cluster(ctx, "serve: {listen: \"${HOSTNAME}:8009\"}\n", func(repository, dir string) error {
		text, err := os.ReadFile(filepath.Join(repository, "monitoring", "dashboard.json"))
		if err != nil {
			return err
		}
		var b board
		if err := json.Unmarshal(text, &b); err != nil {
			return err
		}
		began := time.Now()
		server, err := d.scrape(ctx, repository, dir)
		if err != nil {
			return err
		}
		defer server.stop()
		if err := d.events(ctx); err != nil {
			return err
		}
		span := window{from: began, until: time.Now()}
		panels, ends, err := server.ask(ctx, b, span)
		if err != nil {
			return err
		}
		versions, err := d.versions(ctx)
		if err != nil {
			return err
		}
		caption := fmt.Sprintf("%s: a switchover and a restart of the primary under load, scraped every second. Patroni %s, PostgreSQL %s, PgBouncer %s.",
			b.Title, versions["Patroni"], versions["PostgreSQL"], versions["PgBouncer"])
		png, err := drawBoard(panels, ends, span, caption)
		if err != nil {
			return err
		}
		d.screen.step("%s: %d kB", file, len(png)/1000)
		return os.WriteFile(file, png, 0o644)
	})
}

// events are what the picture shows.
func (d *demo) events(ctx context.Context) error {
	probe, err := d.lab.StartProbe(ctx, 8, 10*time.Millisecond)
	if err != nil {
		return err
	}
	defer probe.Stop()
	for _, name := range []string{"switchover", "restart"} {
		if err := pass(ctx, quiet); err != nil {
			return err
		}
		if _, _, err := d.operate(ctx, "pgbaton", name, probe); err != nil {
			return err
		}
	}
	if err := pass(ctx, quiet); err != nil {
		return err
	}
	if n := len(probe.Errors()); n > 0 {
		return fmt.Errorf("clients saw %d errors", n)
	}
	return nil
}

// prometheus is one that runs.
type prometheus struct {
	url  string
	stop func()
}

// scrape starts serve on every member, and a Prometheus that scrapes these.
func (d *demo) scrape(ctx context.Context, repository, dir string) (*prometheus, error) {
	var config strings.Builder
	fmt.Fprintf(&config, "global: {scrape_interval: %s}\nscrape_configs:\n  - job_name: pgbaton\n    static_configs:\n", scrapeInterval)
	for _, m := range d.lab.Members() {
		if _, err := m.StartExec(ctx, nil, "/callbacks/pgbaton", "serve"); err != nil {
			return nil, err
		}
		fmt.Fprintf(&config, "      - {targets: [%q], labels: {instance: %s}}\n", m.Address+":8009", m.Name)
	}
	out, err := exec.CommandContext(ctx, filepath.Join(repository, "scripts", "promtool.sh"), "prometheus").Output()
	if err != nil {
		return nil, &problem{fmt.Sprintf("no Prometheus: %v", err), "see that apt-get can fetch Debian's package prometheus"}
	}
	words := strings.Fields(string(out))
	file, data := filepath.Join(dir, "prometheus.yml"), filepath.Join(dir, "prometheus")
	if err := os.WriteFile(file, []byte(config.String()), 0o644); err != nil {
		return nil, err
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := free.Addr().String()
	_ = free.Close()
	cmd := exec.CommandContext(ctx, words[len(words)-1], "--config.file="+file, "--storage.tsdb.path="+data,
		"--web.listen-address="+address, "--log.level=error")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &prometheus{url: "http://" + address, stop: func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}}
	d.screen.step("Prometheus scrapes serve of %d members", len(d.lab.Members()))
	return p, p.ready(ctx, len(d.lab.Members()))
}

// ready waits until every member has been scraped.
func (p *prometheus) ready(ctx context.Context, members int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		got, err := p.query(ctx, "query", url.Values{"query": {"sum(up)"}})
		if err == nil && len(got) == 1 && int(got[0].points[0].value) == members {
			return nil
		}
		if passErr := pass(ctx, scrapeInterval/4); passErr != nil {
			p.stop()
			return fmt.Errorf("not all %d members are scraped by Prometheus: %v %w", members, got, errors.Join(err, passErr))
		}
	}
}

// window is the time that the picture shows.
type window struct{ from, until time.Time }

var variable = regexp.MustCompile(`\$\w+`)

// fill puts in a query's variables what Grafana would.
func (w window) fill(query string) (string, error) {
	var unknown error
	filled := variable.ReplaceAllStringFunc(query, func(name string) string {
		switch name {
		case "$job", "$instance":
			return ".+"
		case "$__rate_interval":
			return fmt.Sprintf("%ds", int(rateInterval.Seconds()))
		case "$__range":
			return fmt.Sprintf("%ds", int(math.Ceil(w.until.Sub(w.from).Seconds())))
		}
		unknown = fmt.Errorf("no variable %s: %s", name, query)
		return name
	})
	return filled, unknown
}

// ask sends every panel's queries, and those of the annotations: the times at which these have begun.
func (p *prometheus) ask(ctx context.Context, b board, w window) ([]drawn, []time.Time, error) {
	stamp := func(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }
	over := url.Values{"start": {stamp(w.from)}, "end": {stamp(w.until)}, "step": {"1"}}
	at := url.Values{"time": {stamp(w.until)}}
	ask := func(query, legend string, instant bool) ([]series, error) {
		filled, err := w.fill(query)
		if err != nil {
			return nil, err
		}
		kind, values := "query_range", over
		if instant {
			kind, values = "query", at
		}
		values.Set("query", filled)
		return p.queryWith(ctx, kind, values, legend)
	}
	var panels []drawn
	for _, spec := range b.Panels {
		panel := drawn{panelSpec: spec}
		for _, target := range spec.Targets {
			got, err := ask(target.Expr, target.LegendFormat, target.Instant)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", spec.Title, err)
			}
			panel.series = append(panel.series, got...)
		}
		panels = append(panels, panel)
	}
	var ends []time.Time
	for _, a := range b.Annotations.List {
		// Its own range is for the usual scrape interval.
		got, err := ask(strings.ReplaceAll(a.Expr, "[1m]", "[$__rate_interval]"), "", false)
		if err != nil {
			return nil, nil, fmt.Errorf("annotation %s: %w", a.Name, err)
		}
		for _, s := range got {
			for i, at := range s.points {
				if i == 0 || at.at.Sub(s.points[i-1].at) > 2*scrapeInterval {
					ends = append(ends, at.at)
				}
			}
		}
	}
	return panels, ends, nil
}

func (p *prometheus) query(ctx context.Context, kind string, values url.Values) ([]series, error) {
	return p.queryWith(ctx, kind, values, "")
}

var label = regexp.MustCompile(`\{\{(\w+)\}\}`)

// queryWith is one call of Prometheus' API.
func (p *prometheus) queryWith(ctx context.Context, kind string, values url.Values, legend string) ([]series, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/api/v1/"+kind+"?"+values.Encode(), nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64*mib))
	if err != nil {
		return nil, err
	}
	return readSeries(body, legend)
}

// readSeries reads what Prometheus has answered.
func readSeries(body []byte, legend string) ([]series, error) {
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
				Values [][2]any
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Error != "" {
		return nil, fmt.Errorf("what Prometheus answers: %s %w", answer.Error, err)
	}
	var found []series
	for _, r := range answer.Data.Result {
		s := series{legend: label.ReplaceAllStringFunc(legend, func(m string) string { return r.Metric[label.FindStringSubmatch(m)[1]] })}
		if legend == "table" || legend == "" {
			s.legend = strings.Join([]string{r.Metric["instance"], r.Metric["version"], r.Metric["goversion"]}, "  ")
		}
		values := r.Values
		if len(values) == 0 && r.Value[0] != nil {
			values = [][2]any{r.Value}
		}
		for _, v := range values {
			at, ok := v[0].(float64)
			text, isText := v[1].(string)
			value, err := strconv.ParseFloat(text, 64)
			if !ok || !isText || err != nil {
				return nil, fmt.Errorf("what Prometheus answers: the value %v", v)
			}
			if !math.IsNaN(value) && !math.IsInf(value, 0) {
				s.points = append(s.points, point{time.UnixMilli(int64(at * 1000)), value})
			}
		}
		if len(s.points) > 0 {
			found = append(found, s)
		}
	}
	return found, nil
}
