package train

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"

	"ptune/internal/report"
	"ptune/internal/tensorfile"
)

// State is all that a run needs to resume: the steps after it are bit-identical to those of a run
// that was not interrupted. The order of the rows and the learning rate are not in it: they follow
// from the job and the step.
type State struct {
	Identity map[string]string // what the run depends on, by name; set and compared by the caller
	scalars
	blocks  [][]float32 // the parameters
	moments [][]moments // of each block's optimizer
	best    []float32
	good    []float32 // divergence's
}

// scalars are the single values of a state; the names in the file are those of format 1.
type scalars struct {
	Step       int               `json:"step"`
	BestStep   int               `json:"best_step"`
	Evaluated  int               `json:"evaluated"`
	Worse      int               `json:"worse"`
	Loss       exact             `json:"loss"`
	ToBeat     exact             `json:"mark"`
	Valid      []report.Eval     `json:"valid"`
	Divergence divergenceScalars `json:"away"`
	Stuck      stuckScalars      `json:"stuck"`
	Counts     []int             `json:"counts"`  // steps of each block's optimizer
	Seconds    float64           `json:"seconds"` // over all attempts; 0 in states of earlier versions
}

type divergenceScalars struct {
	First    exact `json:"first"`
	Limit    exact `json:"limit"`
	Above    int   `json:"steps"`
	GoodStep int   `json:"good_step"`
}

type stuckScalars struct {
	Largest exact `json:"largest"`
	Grad    exact `json:"grad"`
	Loss    exact `json:"loss"`
	Steps   int   `json:"steps"`
}

// moments is one vector of an optimizer's state. float64 holds float32 moments exactly.
type moments []float64

// exact is a float whose bits JSON keeps, NaN and infinities included.
type exact float64

// MarshalJSON writes the bits as hexadecimal digits.
func (x exact) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, `"%016x"`, math.Float64bits(float64(x))), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (x *exact) UnmarshalJSON(text []byte) error {
	var bits uint64
	if n, err := fmt.Sscanf(string(text), `"%016x"`, &bits); n != 1 {
		return fmt.Errorf("want 16 hexadecimal digits: %w", err)
	}
	*x = exact(math.Float64frombits(bits))
	return nil
}

// state returns the state of the run between two steps. It shares the run's arrays.
func (r *run) state() *State {
	s := &State{best: r.result.Best, good: r.good}
	s.scalars = scalars{
		Step: r.result.Steps, BestStep: r.result.BestStep, Evaluated: r.evaluated, Worse: r.worse,
		Loss: exact(r.result.Loss), ToBeat: exact(r.toBeat), Valid: r.result.Valid,
		Seconds:    r.seconds(),
		Divergence: divergenceScalars{exact(r.first), exact(r.limit), r.above, r.goodStep},
		Stuck: stuckScalars{
			exact(r.stuck.largest), exact(r.stuck.grad), exact(r.stuck.loss), r.stuck.steps,
		},
	}
	for _, b := range r.params.blocks {
		s.blocks = append(s.blocks, b.values)
		t, m := b.optimizer.moments()
		s.Counts, s.moments = append(s.Counts, t), append(s.moments, m)
	}
	return s
}

// Finished reports whether a run of this configuration has nothing left to do after the state.
func (s *State) Finished(c Config) bool {
	return s.Evaluated == s.Step && (s.Step >= c.Steps || c.Patience > 0 && s.Worse >= c.Patience)
}

// restore puts the run where it was. The job must be the one that made the state, or one with more
// steps.
func (r *run) restore(s *State) error {
	differ := func(what string, got, want int) error {
		return fmt.Errorf("resume from step %d: the state has %d %s, the run has %d", s.Step, got,
			what, want)
	}
	if len(s.best) != len(r.Values) {
		return differ("values of the best prompt", len(s.best), len(r.Values))
	}
	if len(s.blocks) != len(r.params.blocks) {
		return differ("blocks of parameters", len(s.blocks), len(r.params.blocks))
	}
	for i, b := range r.params.blocks {
		if len(s.blocks[i]) != len(b.values) {
			return differ("parameters", len(s.blocks[i]), len(b.values))
		}
		copy(b.values, s.blocks[i])
		if err := b.optimizer.restore(s.Counts[i], s.moments[i]); err != nil {
			return fmt.Errorf("resume from step %d: %w", s.Step, err)
		}
	}
	r.params.compute()
	*r.result = Result{
		Steps: s.Step, BestStep: s.BestStep, StopReason: r.result.StopReason,
		Best: slices.Clone(s.best), Loss: float64(s.Loss), Valid: s.Valid,
	}
	r.evaluated, r.worse, r.toBeat = s.Evaluated, s.Worse, float64(s.ToBeat)
	r.earlier = s.Seconds
	r.divergence = divergence{
		first: float64(s.Divergence.First), limit: float64(s.Divergence.Limit),
		above: s.Divergence.Above,
		good:  slices.Clone(s.good), goodStep: s.Divergence.GoodStep,
	}
	r.stuck = stuck{
		float64(s.Stuck.Largest), float64(s.Stuck.Grad), float64(s.Stuck.Loss), s.Stuck.Steps,
	}
	return nil
}

// A state file is a safetensors file with the arrays as tensors and, in its metadata, the scalars,
// the identity and a hash of all of it.
const (
	stateKey    = "ptune_state"
	identityKey = "identity"
	hashKey     = "sha256"
	stateFormat = "1"
)

// before returns the path of the previous state.
func before(path string) string { return path + ".before" }

// Save writes the state to path. The state before it is kept beside it, so that one of them is always
// complete.
func (s *State) Save(path string) error {
	tensors := []tensorfile.Tensor{tensorfile.Floats("best", []int{len(s.best)}, s.best)}
	if len(s.good) > 0 {
		tensors = append(tensors, tensorfile.Floats("good", []int{len(s.good)}, s.good))
	}
	for i, b := range s.blocks {
		tensors = append(tensors, tensorfile.Floats(fmt.Sprintf("block.%d", i), []int{len(b)}, b))
		for k, m := range s.moments[i] {
			data := make([]byte, 0, 8*len(m))
			for _, v := range m {
				data = binary.LittleEndian.AppendUint64(data, math.Float64bits(v))
			}
			name := fmt.Sprintf("moment.%d.%d", i, k)
			t := tensorfile.Tensor{Name: name, DType: "F64", Shape: []int{len(m)}, Data: data}
			tensors = append(tensors, t)
		}
	}
	body, err := json.Marshal(s.scalars)
	if err != nil {
		return fmt.Errorf("write state %q: %w", path, err)
	}
	identity, err := json.Marshal(s.Identity)
	if err != nil {
		return fmt.Errorf("write state %q: %w", path, err)
	}
	meta := map[string]string{"format": stateFormat, stateKey: string(body),
		identityKey: string(identity)}
	meta[hashKey] = stateHash(meta, tensors)
	if err := os.Rename(path, before(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write state: %w", err)
	}
	return tensorfile.Write(path, tensors, meta)
}

// stateHash returns the hash of everything in a state file.
func stateHash(meta map[string]string, tensors []tensorfile.Tensor) string {
	h := sha256.New()
	for _, k := range []string{"format", stateKey, identityKey} {
		fmt.Fprintf(h, "%d %s\n", len(meta[k]), meta[k])
	}
	tensors = slices.Clone(tensors)
	slices.SortFunc(tensors, func(a, b tensorfile.Tensor) int { return strings.Compare(a.Name, b.Name) })
	for _, t := range tensors {
		fmt.Fprintf(h, "%s %s %v\n", t.Name, t.DType, t.Shape)
		h.Write(t.Data)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// LoadState reads the newest state. If that is damaged or missing, it reads the previous one and returns
// the newest one's error as damage. err wraps fs.ErrNotExist if there is no state at all.
func LoadState(path string) (s *State, damage, err error) {
	s, damage = loadState(path)
	if damage == nil {
		return s, nil, nil
	}
	s, err = loadState(before(path))
	switch {
	case err == nil:
		return s, damage, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, damage
	}
	return nil, nil, errors.Join(damage, err)
}

func loadState(path string) (*State, error) {
	f, err := tensorfile.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := parseState(f)
	if err != nil {
		return nil, fmt.Errorf("read state %q: %w", path, err)
	}
	return s, nil
}

func parseState(f *tensorfile.File) (*State, error) {
	if f.Meta[stateKey] == "" || f.Meta["format"] != stateFormat {
		return nil, errors.New("not a state of this version of ptune")
	}
	var tensors []tensorfile.Tensor
	for _, t := range f.Tensors() {
		tensors = append(tensors, t)
	}
	if got := stateHash(f.Meta, tensors); got != f.Meta[hashKey] {
		return nil, errors.New("damaged: the hash differs from the one in the file")
	}
	s := &State{}
	if err := json.Unmarshal([]byte(f.Meta[stateKey]), &s.scalars); err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(f.Meta[identityKey]), &s.Identity); err != nil {
		return nil, err
	}
	values := func(name string) []float32 {
		t, ok := f.Tensor(name)
		if !ok {
			return nil
		}
		v, err := t.Values()
		if err != nil {
			return nil
		}
		return v
	}
	s.best, s.good = values("best"), values("good")
	for i := range s.Counts {
		s.blocks = append(s.blocks, values(fmt.Sprintf("block.%d", i)))
		s.moments = append(s.moments, momentsOf(f, i))
	}
	return s, nil
}

// momentsOf returns the vectors of block i's optimizer.
func momentsOf(f *tensorfile.File, i int) (all []moments) {
	for {
		t, ok := f.Tensor(fmt.Sprintf("moment.%d.%d", i, len(all)))
		if !ok {
			return all
		}
		m := make(moments, len(t.Data)/8)
		for j := range m {
			m[j] = math.Float64frombits(binary.LittleEndian.Uint64(t.Data[8*j:]))
		}
		all = append(all, m)
	}
}
