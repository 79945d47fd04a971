package report

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Chart is a line chart. Its SVG needs no font, script or other file, and follows the reader's
// light or dark theme. Equal charts give equal bytes.
type Chart struct {
	Title, X, Y string
	LogX        bool     // logarithmic X axis
	Categories  []string // names for X = 0, 1, …; empty: X is a number
	Series      []Series
}

// Series is a line of a Chart.
type Series struct {
	Name   string
	Points []Point
}

// Point is a value. If Low < High, it is a mean, and an error bar shows this range.
type Point struct{ X, Y, Low, High float64 }

// Sizes and margins in pixels. chartLegend is the height of a line of the legend.
const (
	chartWidth, chartHeight            = 720, 360
	chartLeft, chartRight              = 64, 16
	chartTop, chartBottom, chartLegend = 36, 48, 18
)

// colours are distinct for colour-blind readers, on light and dark (Okabe and Ito, 2008).
var colours = []string{
	"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d00", "#7f7f7f",
}

// dashes distinguish series that share a colour.
var dashes = []string{"", "6 3", "2 3", "8 3 2 3"}

// frame is the area of the plot: the ranges of the axes and their place in pixels.
type frame struct{ x0, x1, y0, y1 float64 }

// x and y return the pixel of a value.
func (f frame) x(v float64) float64 {
	return chartLeft + (v-f.x0)/(f.x1-f.x0)*(chartWidth-chartLeft-chartRight)
}

func (f frame) y(v float64) float64 {
	return chartTop + (f.y1-v)/(f.y1-f.y0)*(chartHeight-chartTop-chartBottom)
}

// frame returns ranges that hold all points, with a margin.
func (c Chart) frame() frame {
	x0, x1, y0, y1 := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, s := range c.Series {
		for _, p := range s.Points {
			x0, x1 = min(x0, c.x(p.X)), max(x1, c.x(p.X))
			for _, y := range []float64{p.Y, p.low(), p.high()} {
				if !math.IsNaN(y) && !math.IsInf(y, 0) {
					y0, y1 = min(y0, y), max(y1, y)
				}
			}
		}
	}
	if !(x0 <= x1) || !(y0 <= y1) {
		x0, x1, y0, y1 = 0, 1, 0, 1
	}
	if len(c.Categories) > 0 {
		x0, x1 = -0.5, float64(len(c.Categories))-0.5
	}
	if x0 == x1 {
		x0, x1 = x0-0.5, x1+0.5
	}
	pad := (y1 - y0) * 0.06
	if pad == 0 {
		pad = max(math.Abs(y0)*0.1, 0.1)
	}
	return frame{x0, x1, y0 - pad, y1 + pad}
}

// SVG returns the chart as an SVG document.
func (c Chart) SVG() string {
	height := chartHeight
	if len(c.Series) > 1 {
		height += chartLegend * len(c.Series)
	}
	f := c.frame()
	var b strings.Builder
	fmt.Fprintf(&b,
		`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" `+
			`role="img" aria-label="%s" font-family="system-ui, sans-serif" font-size="12">`+"\n",
		chartWidth, height, chartWidth, height, html.EscapeString(c.Title))
	b.WriteString("<style>.t{fill:#333}.g{stroke:#8885}" +
		"@media(prefers-color-scheme:dark){.t{fill:#ddd}}</style>\n")
	fmt.Fprintf(&b, `<text class="t" x="%d" y="20" font-size="14" font-weight="600">%s</text>`+"\n",
		chartLeft, html.EscapeString(c.Title))
	c.axes(&b, f)
	for i, s := range c.Series {
		colour, dash := colours[i%len(colours)], dashes[i/len(colours)%len(dashes)]
		c.line(&b, f, s, colour, dash)
		if len(c.Series) > 1 {
			y := chartHeight + i*chartLegend
			fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%d" y2="%d" stroke="%s" stroke-width="2.5" `+
				`stroke-dasharray="%s"/><text class="t" x="%d" y="%d">%s</text>`+"\n",
				chartLeft, chartLeft+26, y+4, y+4, colour, dash, chartLeft+34, y+8,
				html.EscapeString(s.Name))
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// axes draws the grid, its labels and the names of the axes.
func (c Chart) axes(b *strings.Builder, f frame) {
	const right, bottom = chartWidth - chartRight, chartHeight - chartBottom
	for _, v := range ticks(f.y0, f.y1) {
		y := f.y(v)
		fmt.Fprintf(b, `<line class="g" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>`+
			`<text class="t" x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			chartLeft, right, y, y, chartLeft-6, y+4, short(v))
	}
	for _, t := range c.xTicks(f.x0, f.x1) {
		x := f.x(t.at)
		fmt.Fprintf(b, `<line class="g" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`+
			`<text class="t" x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n",
			x, x, chartTop, bottom, x, bottom+16, html.EscapeString(t.label))
	}
	fmt.Fprintf(b, `<text class="t" x="%d" y="%d" text-anchor="middle">%s</text>`+"\n",
		(chartLeft+right)/2, chartHeight-10, html.EscapeString(c.X))
	fmt.Fprintf(b, `<text class="t" transform="translate(14 %d) rotate(-90)" `+
		`text-anchor="middle">%s</text>`+"\n", (chartTop+bottom)/2, html.EscapeString(c.Y))
}

// line draws a series: a line, its error bars and, if the points are few, circles.
func (c Chart) line(b *strings.Builder, f frame, s Series, colour, dash string) {
	const few = 60
	fmt.Fprintf(b, `<g stroke="%s" fill="%s" stroke-width="1.8">`, colour, colour)
	var points []string
	for _, p := range s.Points {
		if math.IsNaN(p.Y) || math.IsInf(p.Y, 0) {
			continue
		}
		x, y := f.x(c.x(p.X)), f.y(p.Y)
		points = append(points, fmt.Sprintf("%.1f,%.1f", x, y))
		if p.Low < p.High {
			fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke-opacity="0.5"/>`,
				x, x, f.y(p.Low), f.y(p.High))
		}
		if len(s.Points) <= few {
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3"/>`, x, y)
		}
	}
	if len(points) > 1 {
		fmt.Fprintf(b, `<polyline fill="none" stroke-dasharray="%s" points="%s"/>`,
			dash, strings.Join(points, " "))
	}
	b.WriteString("</g>\n")
}

func (p Point) low() float64 {
	if p.Low < p.High {
		return p.Low
	}
	return p.Y
}

func (p Point) high() float64 {
	if p.Low < p.High {
		return p.High
	}
	return p.Y
}

// x returns the place of a value on the axis.
func (c Chart) x(v float64) float64 {
	if c.LogX {
		return math.Log10(v)
	}
	return v
}

// tick is a mark of an axis.
type tick struct {
	at    float64
	label string
}

// xTicks returns the marks of the X axis from x0 to x1. On a logarithmic axis, each X has one.
func (c Chart) xTicks(x0, x1 float64) []tick {
	var all []tick
	switch {
	case len(c.Categories) > 0:
		for i, name := range c.Categories {
			all = append(all, tick{float64(i), name})
		}
	case c.LogX:
		seen := map[float64]bool{}
		for _, s := range c.Series {
			for _, p := range s.Points {
				if !seen[p.X] {
					seen[p.X] = true
					all = append(all, tick{c.x(p.X), short(p.X)})
				}
			}
		}
	default:
		for _, v := range ticks(x0, x1) {
			all = append(all, tick{v, short(v)})
		}
	}
	return all
}

// ticks returns at most seven round numbers from a to b.
func ticks(a, b float64) []float64 {
	step := math.Pow(10, math.Floor(math.Log10((b-a)/4)))
	for _, f := range []float64{1, 2, 5, 10} {
		if (b-a)/(step*f) <= 6 {
			step *= f
			break
		}
	}
	var all []float64
	for v := math.Ceil(a/step) * step; v <= b+step/1e6; v += step {
		all = append(all, math.Round(v/step)*step+0) // −0 is 0
	}
	return all
}

// short returns a number with at most four digits.
func short(v float64) string { return fmt.Sprintf("%.4g", v) }
