package main

import (
	"bytes"
	"encoding/json"
	"image/png"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const maxPicture = 300_000 // bytes, of a picture in the repository

func realBoard(t *testing.T) board {
	t.Helper()
	content, err := os.ReadFile("../../monitoring/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var b board
	if err := json.Unmarshal(content, &b); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDashboardPicture: every panel of the dashboard can be asked for and drawn, with data and without. What it is in the end is looked at.
func TestDashboardPicture(t *testing.T) {
	b := realBoard(t)
	w := window{from: time.Unix(1000, 0), until: time.Unix(1060, 0)}
	for _, full := range []bool{true, false} {
		var panels []drawn
		for _, spec := range b.Panels {
			p := drawn{panelSpec: spec}
			for _, target := range spec.Targets {
				if query, err := w.fill(target.Expr); err != nil || strings.Contains(query, "$") {
					t.Errorf("%s: %v %s", spec.Title, err, query)
				}
				if full {
					p.series = append(p.series, series{"a", []point{{w.from, 0}, {w.from.Add(time.Second), 1}}}, series{"b", []point{{w.until, 2}}})
				}
			}
			panels = append(panels, p)
		}
		picture, err := drawBoard(panels, []time.Time{w.from.Add(20 * time.Second)}, w, b.Title)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := png.Decode(bytes.NewReader(picture)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := drawBoard([]drawn{{panelSpec: panelSpec{Type: "piechart", Title: "x"}, series: []series{{"a", nil}}}}, nil, w, ""); err == nil {
		t.Error("a type of panel that cannot be drawn is left out in silence")
	}
	if _, err := w.fill("a[$new]"); err == nil {
		t.Error("a variable that is not known is sent to Prometheus")
	}
}

// TestReadSeries: what Prometheus answers, also where it is no number.
func TestReadSeries(t *testing.T) {
	got, err := readSeries([]byte(`{"status":"success","data":{"result":[
		{"metric":{"pooler":"p:1"},"values":[[1.5,"2"],[2.5,"NaN"],[3.5,"4"]]},{"metric":{},"values":[[1,"NaN"]]}]}}`), "{{pooler}} x")
	want := []series{{"p:1 x", []point{{time.UnixMilli(1500), 2}, {time.UnixMilli(3500), 4}}}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(series{}, point{})); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for _, body := range []string{`{"status":"error","error":"parse error"}`, `x`, `{"data":{"result":[{"value":[1,"x"]}]}}`} {
		if got, err := readSeries([]byte(body), ""); err == nil {
			t.Errorf("%s: %v", body, got)
		}
	}
}

// TestPictureInTheDocs: docs/dashboard.png, which make dashboard-picture makes, is a picture and no burden for whoever clones.
func TestPictureInTheDocs(t *testing.T) {
	content, err := os.ReadFile("../../docs/dashboard.png")
	if err != nil {
		t.Fatal(err)
	}
	config, err := png.DecodeConfig(bytes.NewReader(content))
	if err != nil || config.Width < 1000 || len(content) > maxPicture {
		t.Errorf("%v, %d x %d, %d bytes", err, config.Width, config.Height, len(content))
	}
}
