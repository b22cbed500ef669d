package main

import (
	"bytes"
	"cmp"
	"fmt"
	"image/color"
	"math"
	"slices"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// The dashboard's grid: 24 columns, and rows of one unit.
const (
	gridColumns = 24
	gridWidth   = 30 * vg.Centimeter
	gridUnit    = 0.75 * vg.Centimeter
	gridGap     = 0.1 * vg.Centimeter
	boardHead   = 1.0 * vg.Centimeter
	boardDPI    = 96
)

var (
	boardGround = color.RGBA{0xF2, 0xF3, 0xF5, 0xFF}
	panelGround = color.RGBA{0xFF, 0xFF, 0xFF, 0xFF}
	lineColours = []color.RGBA{
		plotBlue, plotOrange, plotGreen, {0xCC, 0x79, 0xA7, 0xFF}, {0x56, 0xB4, 0xE9, 0xFF}, {0xE6, 0x9F, 0x00, 0xFF}, plotGrey,
	}
)

// drawBoard draws all panels where the dashboard has them, as a PNG. ends are marked in the panels with a time axis.
func drawBoard(panels []drawn, ends []time.Time, w window, caption string) ([]byte, error) {
	rows := 0
	for _, p := range panels {
		rows = max(rows, p.GridPos.Y+p.GridPos.H)
	}
	height := boardHead + vg.Length(rows)*gridUnit
	canvas := vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(gridWidth, height), vgimg.UseDPI(boardDPI))}
	page := draw.New(canvas)
	fill(page, boardGround)
	words(page, 10, plotGrey, text.XLeft, vg.Point{X: page.Min.X + gridGap*2, Y: page.Max.Y - boardHead/2}, caption)
	column := gridWidth / gridColumns
	for _, p := range panels {
		at := draw.Canvas{Canvas: page.Canvas, Rectangle: vg.Rectangle{
			Min: vg.Point{X: vg.Length(p.GridPos.X)*column + gridGap, Y: height - boardHead - vg.Length(p.GridPos.Y+p.GridPos.H)*gridUnit + gridGap},
			Max: vg.Point{X: vg.Length(p.GridPos.X+p.GridPos.W)*column - gridGap, Y: height - boardHead - vg.Length(p.GridPos.Y)*gridUnit - gridGap},
		}}
		if err := p.draw(at, ends, w); err != nil {
			return nil, fmt.Errorf("%s: %w", p.Title, err)
		}
	}
	var out bytes.Buffer
	_, err := canvas.WriteTo(&out)
	return out.Bytes(), err
}

func fill(c draw.Canvas, colour color.Color) {
	c.SetColor(colour)
	c.Fill(c.Rectangle.Path())
}

// words writes one line, at a point that is in the middle of its height.
func words(c draw.Canvas, size vg.Length, colour color.Color, align text.XAlignment, at vg.Point, line string) {
	style := plot.New().Title.TextStyle
	style.Font.Variant, style.Font.Size = "Sans", size
	style.Color, style.XAlign, style.YAlign = colour, align, text.YCenter
	c.FillText(style, at, line)
}

func (p drawn) draw(c draw.Canvas, ends []time.Time, w window) error {
	if p.Type == "row" {
		words(c, 11, color.Black, text.XLeft, vg.Point{X: c.Min.X, Y: (c.Min.Y + c.Max.Y) / 2}, p.Title)
		return nil
	}
	fill(c, panelGround)
	words(c, 9, color.Black, text.XLeft, vg.Point{X: c.Min.X + 2*gridGap, Y: c.Max.Y - 3*gridGap}, p.Title)
	inner := draw.Crop(c, 2*gridGap, -2*gridGap, gridGap, -6*gridGap)
	middle := vg.Point{X: (c.Min.X + c.Max.X) / 2, Y: (c.Min.Y+c.Max.Y)/2 - 2*gridGap}
	switch {
	case p.Type == "stat":
		words(inner, 16, plotBlue, text.XCenter, middle, p.stat())
	case len(p.series) == 0:
		words(inner, 9, plotGrey, text.XCenter, middle, "No data")
	case p.Type == "table":
		for i, s := range p.series {
			words(inner, 8, color.Black, text.XLeft, vg.Point{X: inner.Min.X, Y: inner.Max.Y - vg.Length(i+1)*4*gridGap}, s.legend)
		}
	case p.Type == "state-timeline":
		return p.states(inner, w)
	case p.Type == "timeseries":
		return p.lines(inner, ends, w)
	default:
		return fmt.Errorf("no way to draw a panel of type %q", p.Type)
	}
	return nil
}

// stat is the last value of each series, in words where the dashboard has them.
func (p drawn) stat() string {
	if len(p.series) == 0 {
		return cmp.Or(p.FieldConfig.Defaults.NoValue, "No data")
	}
	said := ""
	for i, s := range p.series {
		if i > 0 {
			said += " / "
		}
		value := fmt.Sprintf("%g", math.Round(s.points[len(s.points)-1].value*100)/100)
		for _, m := range p.FieldConfig.Defaults.Mappings {
			if o, ok := m.Options[value]; ok {
				value = o.Text
			}
		}
		said += value
	}
	return said
}

// states draws a bar for each series, in another colour where its value is not 0.
func (p drawn) states(c draw.Canvas, w window) error {
	graph := p.axes(w)
	for i, s := range p.series {
		for first := 0; first < len(s.points); {
			at, next := s.points[first], first+1
			for next < len(s.points) && s.points[next].value == at.value {
				next++
			}
			x, y, until := at.at.Sub(w.from).Seconds(), float64(i), s.points[next-1].at.Add(scrapeInterval).Sub(w.from).Seconds()
			first = next
			bar, err := plotter.NewPolygon(plotter.XYs{{X: x, Y: y + 0.1}, {X: x, Y: y + 0.9}, {X: until, Y: y + 0.9}, {X: until, Y: y + 0.1}})
			if err != nil {
				return err
			}
			bar.Color, bar.LineStyle.Width = color.RGBA{0x9A, 0xD0, 0xA8, 0xFF}, 0
			if at.value != 0 {
				bar.Color = plotOrange
			}
			graph.Add(bar)
		}
	}
	graph.Y.Min, graph.Y.Max = 0, float64(len(p.series))
	graph.Y.Tick.Marker = plot.TickerFunc(func(float64, float64) []plot.Tick {
		var ticks []plot.Tick
		for i, s := range p.series {
			ticks = append(ticks, plot.Tick{Value: float64(i) + 0.5, Label: s.legend})
		}
		return ticks
	})
	graph.Draw(c)
	return nil
}

// mostLegends is how many series of a panel are named; the lines of all are there.
const mostLegends = 6

func (p drawn) lines(c draw.Canvas, ends []time.Time, w window) error {
	graph := p.axes(w)
	scale, unit := 1.0, ""
	switch p.FieldConfig.Defaults.Unit {
	case "bytes":
		scale, unit = 1e-6, "MB"
	case "s":
		unit = "s"
	case "reqps":
		unit = "per second"
	}
	graph.Y.Label.Text = unit
	graph.Y.Label.TextStyle.Font.Variant, graph.Y.Label.TextStyle.Font.Size = "Sans", 7
	highest := 0.0
	if len(p.series) > mostLegends { // then those are named in which something happens
		slices.SortStableFunc(p.series, func(a, b series) int { return cmp.Compare(b.highest(), a.highest()) })
	}
	for i, s := range p.series {
		var points plotter.XYs
		for _, at := range s.points {
			points = append(points, plotter.XY{X: at.at.Sub(w.from).Seconds(), Y: at.value * scale})
		}
		highest = max(highest, s.highest()*scale)
		line, err := plotter.NewLine(points)
		if err != nil {
			return err
		}
		line.LineStyle = draw.LineStyle{Color: lineColours[i%len(lineColours)], Width: vg.Points(1.2)}
		graph.Add(line)
		if i < mostLegends {
			graph.Legend.Add(s.legend, line)
		}
	}
	if more := len(p.series) - mostLegends; more > 0 {
		graph.Legend.Add(fmt.Sprintf("and %d more", more))
	}
	graph.Y.Min, graph.Y.Max = 0, max(highest*1.15, 1e-3)
	for _, end := range ends {
		x := end.Sub(w.from).Seconds()
		mark, err := plotter.NewLine(plotter.XYs{{X: x, Y: 0}, {X: x, Y: graph.Y.Max}})
		if err != nil {
			return err
		}
		mark.LineStyle = draw.LineStyle{Color: plotOrange, Width: vg.Points(0.8), Dashes: []vg.Length{vg.Points(3), vg.Points(2)}}
		graph.Add(mark)
	}
	// The names stand below the graph, as Grafana has them, so that they hide nothing.
	legend := graph.Legend
	graph.Legend = plot.NewLegend()
	legend.TextStyle.Font.Variant, legend.TextStyle.Font.Size = "Sans", 6.5
	legend.Left, legend.Top, legend.ThumbnailWidth = true, false, 0.35*vg.Centimeter
	room := vg.Length(min(len(p.series), mostLegends)+len(p.series)/(mostLegends+1)) * 8.5
	legend.Draw(c)
	graph.Draw(draw.Crop(c, 0, 0, room, 0))
	return nil
}

func (s series) highest() float64 {
	highest := 0.0
	for _, p := range s.points {
		highest = max(highest, p.value)
	}
	return highest
}

// axes is an empty graph over the time of the picture.
func (p drawn) axes(w window) *plot.Plot {
	graph := plot.New()
	for _, style := range []*text.Style{&graph.X.Tick.Label, &graph.Y.Tick.Label} {
		style.Font.Variant, style.Font.Size = "Sans", 7
	}
	graph.X.Min, graph.X.Max = 0, w.until.Sub(w.from).Seconds()
	graph.X.Tick.Marker = plot.TickerFunc(func(_, high float64) []plot.Tick {
		var ticks []plot.Tick
		for v := 0.0; v <= high; v += 20 {
			ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprintf("%g s", v)})
		}
		return ticks
	})
	graph.BackgroundColor = panelGround
	slices.SortFunc(p.series, func(a, b series) int { return cmp.Compare(a.legend, b.legend) })
	return graph
}
