package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
)

// Page is a report of one or more runs, or a table of many.
type Page struct {
	Title   string
	Version string
	Table   Table
	Runs    []Run
}

// Run is one run of a report.
type Run struct {
	Name      string
	Log       *Log
	Facts     []Fact // about the prompt and its training
	Task      []Fact // keys of the task file
	Labels    []string
	Confusion [][]int // number of rows by true label, then predicted label
	Set       string  // the validation set of Confusion and Worst
	Worst     []Mistake
	Tokens    []Token
	Note      string // what is missing in the report, and why
}

// Fact is a name and a value.
type Fact struct{ Name, Value string }

// Mistake is a row with a high loss.
type Mistake struct {
	Text           string
	Target, Answer string // of a classification, the true and the predicted label
	Right          bool
	Loss           float64
}

// Token is a virtual token and the tokens nearest to it.
type Token struct {
	Norm    float64
	Nearest []string
}

//go:embed page.html
var pageHTML string

// HTML writes the page as one file that needs no network and no scripts.
func HTML(w io.Writer, p Page) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"chart":   func(c Chart) template.HTML { return template.HTML(c.SVG()) }, // SVG escapes texts
		"heatmap": func(r Run) template.HTML { return template.HTML(r.heatMap()) },
		"shade":   shade, "add": func(a, b int) int { return a + b },
	}).Parse(pageHTML)
	if err != nil {
		return fmt.Errorf("parse page.html: %w", err)
	}
	return t.Execute(w, p)
}

// shade returns the opacity of a cell of a confusion matrix: its share of the row, scaled to 0 to
// 80 %.
func shade(row []int, i int) string {
	sum := 0
	for _, n := range row {
		sum += n
	}
	if sum == 0 {
		return "0%"
	}
	return fmt.Sprintf("%.0f%%", 80*float64(row[i])/float64(sum))
}

// Charts returns the charts of the page, with a line for each run.
func (p Page) Charts() []Chart {
	ofSteps := func(title, y string, value func(Step) Number) Chart {
		c := Chart{Title: title, X: "step", Y: y}
		for _, r := range p.Runs {
			s := Series{Name: r.Name}
			for _, e := range thin(r.Log.Steps) {
				s.Points = append(s.Points, Point{X: float64(e.Step), Y: float64(value(e))})
			}
			c.Series = append(c.Series, s)
		}
		return c
	}
	loss := ofSteps("Loss of each step's batch, and of the validation rows", "loss",
		func(e Step) Number { return e.Loss })
	charts := []Chart{loss}
	ofEvals := func(y string, value func(Eval) *float64) (c Chart, some bool) {
		c = Chart{Title: "Validation " + y, X: "step", Y: y}
		for _, r := range p.Runs {
			sets := map[string]int{}
			for _, e := range r.Log.Evals {
				v := value(e)
				if v == nil || math.IsNaN(*v) {
					continue
				}
				i, ok := sets[e.Set]
				if !ok {
					i = len(c.Series)
					sets[e.Set] = i
					c.Series = append(c.Series, Series{Name: r.Name + ": " + e.Set})
				}
				c.Series[i].Points = append(c.Series[i].Points, Point{X: float64(e.Step), Y: *v})
				some = true
			}
		}
		return c, some
	}
	evalLoss := func(e Eval) *float64 { x := float64(e.Loss); return &x }
	if c, some := ofEvals("loss", evalLoss); some {
		charts[0].Series = append(charts[0].Series, c.Series...)
	} else {
		charts[0].Title = "Loss of each step's batch"
	}
	if c, some := ofEvals("accuracy", func(e Eval) *float64 { return e.Accuracy }); some {
		charts = append(charts, c)
	}
	return append(charts,
		ofSteps("Norm of the gradient", "gradient norm", func(e Step) Number { return e.GradNorm }),
		ofSteps("Norm of the prompt", "prompt norm", func(e Step) Number { return e.PromptNorm }),
		ofSteps("Learning rate", "rate", func(e Step) Number { return Number(e.LearningRate) }))
}

// mostPoints is the largest number of points of a line.
const mostPoints = 600

// thin returns at most mostPoints steps, evenly spaced, the last one included.
func thin(steps []Step) []Step {
	if len(steps) <= mostPoints {
		return steps
	}
	var out []Step
	for i := range mostPoints {
		out = append(out, steps[(i+1)*len(steps)/mostPoints-1])
	}
	return out
}
