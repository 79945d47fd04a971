package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
)

// Page is a report of one run or several.
type Page struct {
	Title   string
	Version string
	Runs    []Run
}

// Run is a run as a report shows it.
type Run struct {
	Name      string
	Log       *Log
	Facts     []Fact // of the prompt and its training
	Task      []Fact
	Labels    []string
	Confusion [][]int // rows by true label, then by the one predicted
	Set       string  // what Confusion and Worst are of
	Worst     []Mistake
	Tokens    []Token
	Note      string // what is missing, and why
}

// Fact is a name and a value.
type Fact struct{ Name, Value string }

// Mistake is a row that was predicted wrongly, or badly.
type Mistake struct {
	Text, Label, Predicted string
	Loss                   float64
}

// Token is a virtual token and the tokens nearest to it.
type Token struct {
	Norm    float64
	Nearest []string
}

//go:embed page.html
var pageHTML string

// HTML writes a page that needs nothing but itself: no network, no scripts.
func HTML(w io.Writer, p Page) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"chart": func(c Chart) template.HTML { return template.HTML(c.SVG()) }, // SVG escapes its texts
		"shade": shade, "add": func(a, b int) int { return a + b },
	}).Parse(pageHTML)
	if err != nil {
		return fmt.Errorf("the page's template: %w", err)
	}
	return t.Execute(w, p)
}

// shade is how dark a cell of a confusion matrix is: the share of its row, 0 to 80 %.
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

// Charts are the curves of the runs: a line for each run.
func (p Page) Charts() []Chart {
	step := func(title, y string, value func(Step) Number) Chart {
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
	loss := step("Loss of each step's batch, and of the validation rows", "loss", func(e Step) Number { return e.Loss })
	charts := []Chart{loss}
	eval := func(y string, value func(Eval) *float64) (c Chart, some bool) {
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
	if c, some := eval("loss", func(e Eval) *float64 { x := float64(e.Loss); return &x }); some {
		charts[0].Series = append(charts[0].Series, c.Series...)
	} else {
		charts[0].Title = "Loss of each step's batch"
	}
	if c, some := eval("accuracy", func(e Eval) *float64 { return e.Accuracy }); some {
		charts = append(charts, c)
	}
	return append(charts, step("Length of the gradient", "gradient norm", func(e Step) Number { return e.GradNorm }),
		step("Length of the prompt", "prompt norm", func(e Step) Number { return e.PromptNorm }),
		step("Learning rate", "rate", func(e Step) Number { return Number(e.LearningRate) }))
}

// mostPoints is how many points of a curve are drawn.
const mostPoints = 600

// thin leaves out steps of a long run, evenly; the last one stays.
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
