// Package config reads the task file: strict keys, defaults, --set. It reports all mistakes at
// once, each with its line and column.
package config

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"ptune/internal/data"
	"ptune/internal/failure"
	"ptune/internal/prompt"
	"ptune/internal/train"
)

// Reference is a task file with every key, its default and a comment on what it does.
//
//go:embed reference.yaml
var Reference string

// Task is a task file. Each key is declared here, once. Default has the values of missing keys.
type Task struct {
	Model  string `yaml:"model"`
	Prompt Prompt `yaml:"prompt"`
	Data   Data   `yaml:"data"`
	Train  Train  `yaml:"train"`
	Output Output `yaml:"output"`

	file   string
	places map[string]string // place of each key that is set
}

// Place returns the place of a key or, if it is not set, of its section: file:line:column, or the
// --set that set it.
func (t *Task) Place(key string) string {
	for k := key; k != ""; k = k[:max(0, strings.LastIndexByte(k, '.'))] {
		if p, ok := t.places[k]; ok {
			return p
		}
	}
	return t.file
}

// Warnings returns a sentence for each text in which a backslash and a letter probably mean a line break
// or a tab. YAML reads them so only between double quotes, and --set takes a text as it is.
func (t *Task) Warnings() []string {
	var notes []string
	note := func(key, text string) {
		if e := data.KeptEscape(text); e != "" {
			notes = append(notes, fmt.Sprintf("%s: %s has %s as two characters: write a text with it "+
				"in \"double quotes\" in the file, or in the shell's $'…' after --set", t.Place(key), key, e))
		}
	}
	note("prompt.text", t.Prompt.Text)
	note("prompt.anchor_text", t.Prompt.AnchorText)
	note("data.input", t.Data.Input)
	note("data.target", t.Data.Target)
	for _, l := range t.Data.Labels {
		note("data.labels", l.Name)
	}
	return notes
}

// FileError adds the place of a key to an error about the file that it names, and where relative paths
// start. Other errors, and those about a file's content, stay as they are.
func (t *Task) FileError(key, path string, err error) error {
	if !errors.As(err, new(*fs.PathError)) {
		return err
	}
	err = fmt.Errorf("%s: %w", t.Place(key), err)
	if filepath.IsAbs(path) || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	beside := filepath.Join(filepath.Dir(t.file), path)
	if _, missing := os.Stat(beside); missing == nil {
		return failure.Hint(err, "paths in a task file start at the current directory: write %s", beside)
	}
	here, _ := os.Getwd()
	return failure.Hint(err, "relative paths in a task file start at the current directory, %s", here)
}

// Set reports whether the file or a --set has the key.
func (t *Task) Set(key string) bool { return t.places[key] != "" }

// Prompt is the soft prompt: its length and initial values.
type Prompt struct {
	Tokens  int    `yaml:"tokens"`
	Init    string `yaml:"init"`
	Text    string `yaml:"text"`
	File    string `yaml:"file"`
	Special bool   `yaml:"special_tokens"`

	Anchor     float64 `yaml:"anchor"`
	AnchorText string  `yaml:"anchor_text"`
}

// Data is the files of rows and how a row becomes tokens.
type Data struct {
	Train string `yaml:"train"`
	Valid Sets   `yaml:"valid"`

	ValidFraction float64  `yaml:"valid_fraction"`
	Columns       []string `yaml:"columns"`
	Separator     string   `yaml:"separator"`
	Quotes        string   `yaml:"quotes"`
	Encoding      string   `yaml:"encoding"`

	Input       string `yaml:"input"`
	Target      string `yaml:"target"`
	Chat        bool   `yaml:"chat"`
	Messages    string `yaml:"messages"`
	Labels      Labels `yaml:"labels"`
	LabelScores string `yaml:"label_scores"`
	MaxTokens   int    `yaml:"max_tokens"`
	OnTooLong   string `yaml:"on_too_long"`
}

// The values of train.recompute.
const (
	Auto = "auto"
	On   = "on"
	Off  = "off"
)

// Train is the training: length, optimizer, schedule, evaluations, memory.
type Train struct {
	Epochs           int        `yaml:"epochs"`
	Steps            int        `yaml:"steps"`
	BatchSize        int        `yaml:"batch_size"`
	MicroBatchTokens int        `yaml:"micro_batch_tokens"`
	Recompute        string     `yaml:"recompute"`
	Reparametrise    string     `yaml:"reparametrise"`
	Width            int        `yaml:"width"`
	Optimizer        string     `yaml:"optimizer"`
	LearningRate     Rate       `yaml:"learning_rate"`
	Betas            [2]float64 `yaml:"betas"`
	WeightDecay      float64    `yaml:"weight_decay"`
	Schedule         string     `yaml:"schedule"`
	Warmup           float64    `yaml:"warmup"`
	ClipNorm         float64    `yaml:"clip_norm"`
	MaxDecrease      float64    `yaml:"max_decrease"`
	Seed             uint64     `yaml:"seed"`
	Shuffle          bool       `yaml:"shuffle"`
	EvalEvery        int        `yaml:"eval_every"`
	EvalRows         int        `yaml:"eval_rows"`
	Best             string     `yaml:"best"`
	Patience         int        `yaml:"patience"`
	MinGain          float64    `yaml:"min_gain"`
}

// Output is the files that a run writes.
type Output struct {
	Prompt string `yaml:"prompt"`
	Dir    string `yaml:"dir"`

	TensorBoard bool `yaml:"tensorboard"`
}

// Sets are named validation files. A single file has the name "valid".
type Sets []Set

// Set is a named file.
type Set struct{ Name, Path string }

// Labels are the classes, in the order of the file. In a list, each name is also the value.
type Labels []data.Label

// Rate is a learning rate: a number or auto.
type Rate struct {
	Auto  bool
	Value float64
}

// Default returns the task of an empty file.
func Default() *Task {
	return &Task{
		Prompt: Prompt{Tokens: 16, Init: "text"},
		Data: Data{
			Quotes: Auto, Encoding: Auto, LabelScores: data.ScoreSum, MaxTokens: 512,
			OnTooLong: data.TooLongIsError,
		},
		Train: Train{
			Epochs: 3, BatchSize: 16, MicroBatchTokens: 4096, Recompute: Auto,
			Reparametrise: Off, Width: 64,
			Optimizer: "adamw", LearningRate: Rate{Auto: true}, Betas: [2]float64{0.5, 0.9},
			Schedule: "linear", Warmup: 0.05, ClipNorm: 1, Shuffle: true,
			EvalEvery: 50, Best: train.BestLoss, Patience: 5,
		},
	}
}

// Values returns all keys of the task with their values as text.
func (t *Task) Values() map[string]string {
	values := map[string]string{}
	for _, key := range Keys() {
		v := reflect.ValueOf(t).Elem()
		for name := range strings.SplitSeq(key, ".") {
			v, _ = fieldOf(v, name)
		}
		if _, rate := v.Interface().(Rate); v.Kind() != reflect.Struct || rate {
			values[key] = fmt.Sprint(v.Interface())
		}
	}
	return values
}

func (r Rate) String() string {
	if r.Auto {
		return Auto
	}
	return strconv.FormatFloat(r.Value, 'g', -1, 64)
}

// Format returns how a row becomes tokens.
func (d *Data) Format() (*data.Format, error) {
	if d.Messages != "" {
		return data.NewConversations(d.Messages), nil
	}
	return data.NewFormat(d.Input, d.Target, d.Labels)
}

// Reading returns how the files of rows are written.
func (d *Data) Reading() data.Reading {
	return data.Reading{
		Columns: d.Columns, Separator: d.Separator, Quotes: d.Quotes, Encoding: d.Encoding,
	}
}

// check returns all errors in the values; with setOnly, only those of keys that are set.
func (t *Task) check(setOnly bool) error {
	var errs []error
	bad := func(key, format string, args ...any) {
		if !setOnly || t.Set(key) {
			message := fmt.Sprintf(format, args...)
			errs = append(errs, fmt.Errorf("%s: %s %s", t.Place(key), key, message))
		}
	}
	required := func(key, value string) {
		if value == "" {
			bad(key, "is missing")
		}
	}
	oneOf := func(key, value string, choices ...string) {
		if !slices.Contains(choices, value) {
			bad(key, "is %q, want %s", value, strings.Join(choices, ", "))
		}
	}
	atLeast := func(key string, value, least int) {
		if value < least {
			bad(key, "is %d, want at least %d", value, least)
		}
	}
	finite := func(key string, value, least, most float64) {
		if !(value >= least && value <= most) { // false for NaN too
			if math.IsInf(most, 1) {
				bad(key, "is %g, want at least %g", value, least)
			} else {
				bad(key, "is %g, want %g to %g", value, least, most)
			}
		}
	}
	required("model", t.Model)
	required("data.train", t.Data.Train)
	if t.Data.Train == Stdin && t.file == stdinName {
		bad("data.train", "is %q, but standard input has the task file", Stdin)
	}
	if t.Data.Messages == "" {
		required("data.input", t.Data.Input)
		required("data.target", t.Data.Target)
	} else if t.Data.Input != "" || t.Data.Target != "" || len(t.Data.Labels) > 0 {
		bad("data.messages", "is %q, so data.input, data.target and data.labels must be empty: "+
			"a conversation has its own inputs and targets", t.Data.Messages)
	}
	required("output.prompt", t.Output.Prompt)
	atLeast("prompt.tokens", t.Prompt.Tokens, 1)
	if t.Prompt.Tokens > 4096 {
		bad("prompt.tokens", "is %d, want at most 4096", t.Prompt.Tokens)
	}
	oneOf("prompt.init", t.Prompt.Init, prompt.Kinds()...)
	switch {
	case t.Prompt.Init == "text" && t.Prompt.Text == "":
		bad("prompt.text", "is missing; prompt.init: text needs it (prompt.init: vocab does not)")
	case t.Prompt.Init == "file" && t.Prompt.File == "":
		bad("prompt.file", "is missing; prompt.init: file needs it")
	case t.Prompt.Init == "labels" && len(t.Data.Labels) == 0:
		bad("data.labels", "is missing; prompt.init: labels needs them")
	}
	if t.Data.Input != "" && t.Data.Target != "" {
		if _, err := t.Data.Format(); err != nil {
			key, _, _ := strings.Cut(err.Error(), ":")
			errs = append(errs, fmt.Errorf("%s: data.%w", t.Place("data."+key), err))
		}
	}
	finite("data.valid_fraction", t.Data.ValidFraction, 0, 0.9)
	if t.Data.ValidFraction > 0 && len(t.Data.Valid) > 0 {
		bad("data.valid_fraction", "is %g; set data.valid or data.valid_fraction, not both",
			t.Data.ValidFraction)
	}
	for _, m := range t.Data.Reading().Mistakes() {
		bad("data."+m.Key, "%v", m.Err)
	}
	oneOf("data.label_scores", t.Data.LabelScores, data.ScoreSum, data.ScoreMean)
	if t.Data.LabelScores == data.ScoreMean && len(t.Data.Labels) == 0 {
		bad("data.label_scores", "is %q, which needs data.labels", t.Data.LabelScores)
	}
	atLeast("data.max_tokens", t.Data.MaxTokens, 2)
	oneOf("data.on_too_long", t.Data.OnTooLong,
		data.TooLongIsError, data.TooLongDrop, data.TooLongCutInput)
	atLeast("train.epochs", t.Train.Epochs, 1)
	atLeast("train.steps", t.Train.Steps, 0)
	atLeast("train.batch_size", t.Train.BatchSize, 1)
	atLeast("train.micro_batch_tokens", t.Train.MicroBatchTokens, 1)
	oneOf("train.recompute", t.Train.Recompute, Auto, On, Off)
	oneOf("train.optimizer", t.Train.Optimizer, train.Optimizers()...)
	if t.Train.LearningRate.Auto && t.Train.Optimizer == "sgd" {
		bad("train.learning_rate", "is auto, which adamw and adafactor support; sgd needs a number")
	}
	if rate := t.Train.LearningRate; !rate.Auto && !(rate.Value > 0) {
		bad("train.learning_rate", "is %g, want auto or a number above 0", rate.Value)
	}
	for _, b := range t.Train.Betas {
		if !(b >= 0 && b < 1) {
			bad("train.betas", "has %g, want two numbers of at least 0 and below 1", b)
		}
	}
	finite("train.weight_decay", t.Train.WeightDecay, 0, math.Inf(1))
	oneOf("train.schedule", t.Train.Schedule, train.Schedules()...)
	finite("train.warmup", t.Train.Warmup, 0, 1)
	finite("train.clip_norm", t.Train.ClipNorm, 0, math.Inf(1))
	finite("train.max_decrease", t.Train.MaxDecrease, 0, math.Inf(1))
	atLeast("train.eval_every", t.Train.EvalEvery, 1)
	atLeast("train.eval_rows", t.Train.EvalRows, 0)
	oneOf("train.best", t.Train.Best, train.BestBy()...)
	if b := t.Train.Best; len(t.Data.Labels) == 0 && (b == train.BestAccuracy || b == train.BestMacroF1) {
		bad("train.best", "is %q, which needs data.labels", b)
	}
	atLeast("train.patience", t.Train.Patience, 0)
	finite("train.min_gain", t.Train.MinGain, 0, math.Inf(1))
	oneOf("train.reparametrise", t.Train.Reparametrise, train.Reparametrisations()...)
	atLeast("train.width", t.Train.Width, 1)
	finite("prompt.anchor", t.Prompt.Anchor, 0, math.Inf(1))
	if t.Prompt.AnchorText != "" && t.Prompt.Anchor == 0 {
		bad("prompt.anchor_text", "is set, but prompt.anchor is 0, so it has no effect")
	}
	return errors.Join(errs...)
}
