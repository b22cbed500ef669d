package main

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"math"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Okabe and Ito's colours: told apart by everybody.
var (
	plotBlue   = color.RGBA{0x00, 0x72, 0xB2, 0xFF}
	plotOrange = color.RGBA{0xD5, 0x5E, 0x00, 0xFF}
	plotGreen  = color.RGBA{0x00, 0x7A, 0x5A, 0xFF}
	plotGrey   = color.RGBA{0x55, 0x55, 0x55, 0xFF}
	plotStall  = color.RGBA{0xFB, 0xE3, 0xD0, 0xFF}
)

const (
	plotWidth  = 24 * vg.Centimeter
	plotHeight = 15 * vg.Centimeter
	plotDPI    = 144

	roomForMarks = 150 // above the curve, in commits per second
)

// drawn are the operations that a plot shows, with their titles: the switchover both ways; where there is one way only, all that was done.
func (r report) drawn() (operations []operation, titles []string) {
	for _, w := range r.Ways {
		for _, o := range w.Operations {
			title := w.Name
			if len(r.Ways) == 1 {
				title = o.Name
			} else if o.Name != "switchover" {
				continue
			}
			title += fmt.Sprintf(": longest stall %.2f s, %d errors", float64(o.StallMS)/1000, w.Errors)
			if o.LeftPaused {
				title = fmt.Sprintf("%s: paused for ever (ended after %.0f s), %d errors", w.Name, float64(o.StallMS)/1000, w.Errors)
			}
			operations, titles = append(operations, o), append(titles, title)
		}
	}
	return operations, titles
}

// plot draws operations one above the other on the same scales, as "svg" or "png".
func (r report) plot(format string) ([]byte, error) {
	var panels []*plot.Plot
	var highest float64
	var last int64
	operations, titles := r.drawn()
	for _, o := range operations {
		for _, b := range o.Throughput {
			highest = max(highest, perSecond(b))
			last = max(last, b.From+binWidth.Milliseconds())
		}
	}
	top := math.Ceil(max(highest, 1)/100)*100 + roomForMarks
	for i, o := range operations {
		p, err := panel(titles[i], o, top)
		if err != nil {
			return nil, err
		}
		p.X.Min, p.X.Max = -before.Seconds(), float64(last)/1000
		panels = append(panels, p)
	}
	if len(panels) == 0 {
		return nil, errors.New("no switchover to draw")
	}
	panels[len(panels)-1].X.Label.Text = "time since PAUSE (s)"

	var canvas interface {
		vg.CanvasSizer
		vg.CanvasWriterTo
	}
	switch format {
	case "svg":
		canvas = vgsvg.New(plotWidth, plotHeight)
	case "png":
		canvas = vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(plotWidth, plotHeight), vgimg.UseDPI(plotDPI))}
	default:
		return nil, fmt.Errorf("unknown format %q", format)
	}
	page := draw.New(canvas)
	page.SetColor(color.White)
	page.Fill(page.Rectangle.Path())

	const margin, head = 0.4 * vg.Centimeter, 1.3 * vg.Centimeter
	inner := draw.Crop(page, margin, -2*margin, margin, -margin)
	title := panels[0].Title.TextStyle
	title.Font.Size, title.XAlign, title.YAlign = 13, text.XLeft, text.YTop
	title.Color = color.Black
	inner.FillText(title, vg.Point{X: inner.Min.X, Y: inner.Max.Y}, "Writes that clients get through PgBouncer while the primary moves")
	small := title
	small.Font.Size, small.Color = 9, plotGrey
	inner.FillText(
		small,
		vg.Point{X: inner.Min.X, Y: inner.Max.Y - 0.6*vg.Centimeter},
		fmt.Sprintf(
			"Commits of 8 connections that write every 10 ms, in pieces of %d ms, beside pgbench -c 4.  Patroni %s, PostgreSQL %s, PgBouncer %s.",
			binWidth.Milliseconds(),
			r.Versions["Patroni"],
			r.Versions["PostgreSQL"],
			r.Versions["PgBouncer"],
		),
	)

	body := draw.Crop(inner, 0, 0, 0, -head)
	tiles := draw.Tiles{Rows: len(panels), Cols: 1, PadY: 0.5 * vg.Centimeter}
	rows := make([][]*plot.Plot, len(panels))
	for i, p := range panels {
		rows[i] = []*plot.Plot{p}
	}
	for i, row := range plot.Align(rows, tiles, body) {
		panels[i].Draw(row[0])
	}
	var out bytes.Buffer
	_, err := canvas.WriteTo(&out)
	// Where Liberation is not installed a browser would take a serif face.
	return bytes.ReplaceAll(
		out.Bytes(),
		[]byte("font-family:Liberation Sans;"),
		[]byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"),
	), err
}

func perSecond(b bin) float64 { return float64(b.Commits) / binWidth.Seconds() }

// panel draws one operation.
func panel(title string, o operation, top float64) (*plot.Plot, error) {
	p := plot.New()
	sans := func(style *text.Style, size vg.Length) { style.Font.Variant, style.Font.Size = "Sans", size }
	sans(&p.Title.TextStyle, 11)
	sans(&p.X.Label.TextStyle, 10)
	sans(&p.Y.Label.TextStyle, 10)
	sans(&p.X.Tick.Label, 9)
	sans(&p.Y.Tick.Label, 9)
	p.Title.Text = title
	p.Y.Label.Text = "commits per second"
	p.Y.Min, p.Y.Max = 0, top
	p.Y.Tick.Marker = every(200, top-roomForMarks)
	p.X.Tick.Marker = every(0.5, 1e9)

	if all, have := o.step(stepAll); have {
		to := all.At.Sub(o.Zero).Seconds()
		from := to - float64(o.StallMS)/1000
		stall, err := plotter.NewPolygon(plotter.XYs{{X: from, Y: 0}, {X: from, Y: top}, {X: to, Y: top}, {X: to, Y: 0}})
		if err != nil {
			return nil, err
		}
		stall.Color, stall.LineStyle.Width = plotStall, 0
		p.Add(stall)
	}

	// Steps, not slopes: between two pieces nothing is known.
	var line plotter.XYs
	for _, b := range o.Throughput {
		from := float64(b.From) / 1000
		line = append(line, plotter.XY{X: from, Y: perSecond(b)}, plotter.XY{X: from + binWidth.Seconds(), Y: perSecond(b)})
	}
	if len(line) > 0 {
		area := append(plotter.XYs{{X: line[0].X, Y: 0}}, line...)
		area = append(area, plotter.XY{X: line[len(line)-1].X, Y: 0})
		fill, err := plotter.NewPolygon(area)
		if err != nil {
			return nil, err
		}
		fill.Color, fill.LineStyle.Width = color.RGBA{0xBF, 0xDC, 0xEC, 0xFF}, 0
		curve, err := plotter.NewLine(line)
		if err != nil {
			return nil, err
		}
		curve.LineStyle = draw.LineStyle{Color: plotBlue, Width: vg.Points(1.2)}
		p.Add(fill, curve)
	}

	for _, m := range []struct {
		name   stepName
		text   string
		colour color.RGBA
		left   bool // the words stand left of the mark
	}{
		{stepPause, "PAUSE", plotOrange, true},
		{stepResumed, "RESUME", plotGreen, false},
	} {
		s, have := o.step(m.name)
		if !have {
			continue
		}
		x := s.At.Sub(o.Zero).Seconds()
		words := m.text
		if at := o.ms(s); at != 0 {
			words += fmt.Sprintf(" after %d ms", at)
		}
		mark, err := plotter.NewLine(plotter.XYs{{X: x, Y: 0}, {X: x, Y: top}})
		if err != nil {
			return nil, err
		}
		mark.LineStyle = draw.LineStyle{Color: m.colour, Width: vg.Points(1.2), Dashes: []vg.Length{vg.Points(4), vg.Points(2)}}
		name, err := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{{X: x, Y: top - 30}}, Labels: []string{words}})
		if err != nil {
			return nil, err
		}
		style := &name.TextStyle[0]
		sans(style, 9)
		style.Color, style.YAlign = m.colour, text.YTop
		style.XAlign, name.Offset.X = text.XLeft, vg.Points(4)
		if m.left {
			style.XAlign, name.Offset.X = text.XRight, -vg.Points(4)
		}
		p.Add(mark, name)
	}
	return p, nil
}

// every makes ticks at the multiples of a step, up to a limit.
func every(distance, limit float64) plot.Ticker {
	return plot.TickerFunc(func(low, high float64) []plot.Tick {
		var ticks []plot.Tick
		for v := math.Ceil(low/distance) * distance; v <= min(high, limit)+distance/1000; v += distance {
			ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprintf("%g", math.Round(v*10)/10)})
		}
		return ticks
	})
}

// shownUntil is where a plot of an operation ends.
func shownUntil(o operation) time.Time {
	end := o.Zero.Add(2 * time.Second)
	if s, have := o.step(stepAll); have && s.At.After(end) {
		end = s.At
	}
	return end.Add(2 * time.Second)
}
