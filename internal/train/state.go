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

// State is all that a run needs to go on as if it had never stopped: from it, the same steps give the same bits. What is not here
// follows from the job: the order of the examples from the seed and the step, the rate from the schedule.
type State struct {
	Identity map[string]string // what the run depends on, by name; the caller's
	scalars
	blocks  [][]float32 // what is trained
	moments [][]moments // of each block's optimizer
	best    []float32
}

// scalars is what of a state is no matrix.
type scalars struct {
	Step      int           `json:"step"`
	BestStep  int           `json:"best_step"`
	Evaluated int           `json:"evaluated"`
	Worse     int           `json:"worse"`
	Loss      exact         `json:"loss"`
	Mark      exact         `json:"mark"`
	Valid     []report.Eval `json:"valid"`
	Away      awayScalars   `json:"away"`
	Counts    []int         `json:"counts"` // of each block's optimizer's steps
	good      []float32
}

type awayScalars struct {
	First    exact `json:"first"`
	Limit    exact `json:"limit"`
	Steps    int   `json:"steps"`
	GoodStep int   `json:"good_step"`
}

// moments is a vector of an optimizer's; those of f32 are exact in f64.
type moments []float64

// exact is a float that JSON keeps bit by bit, whatever it is.
type exact float64

// MarshalJSON writes the bits.
func (x exact) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, `"%016x"`, math.Float64bits(float64(x))), nil
}

// UnmarshalJSON reads them.
func (x *exact) UnmarshalJSON(text []byte) error {
	var bits uint64
	if n, err := fmt.Sscanf(string(text), `"%016x"`, &bits); n != 1 {
		return fmt.Errorf("want sixteen hexadecimal digits: %w", err)
	}
	*x = exact(math.Float64frombits(bits))
	return nil
}

// state is where the run is, between two steps.
func (r *run) state() *State {
	s := &State{best: r.r.Best}
	s.scalars = scalars{Step: r.r.Steps, BestStep: r.r.BestStep, Evaluated: r.evaluated, Worse: r.worse, Loss: exact(r.r.Loss), Mark: exact(r.mark), Valid: r.r.Valid,
		Away: awayScalars{exact(r.away.First), exact(r.away.Limit), r.away.Steps, r.away.GoodStep}, good: r.away.Good}
	for _, b := range r.p.blocks {
		s.blocks = append(s.blocks, b.values)
		t, m := b.opt.moments()
		s.Counts, s.moments = append(s.Counts, t), append(s.moments, m)
	}
	return s
}

// restore puts the run where it was. The job must be the one that made the state, or one with more steps.
func (r *run) restore(s *State) error {
	bad := func(what string, got, want int) error {
		return fmt.Errorf("go on from step %d: its %s is of %d values, the run's of %d", s.Step, what, got, want)
	}
	if len(s.best) != len(r.Values) {
		return bad("best prompt", len(s.best), len(r.Values))
	}
	if len(s.blocks) != len(r.p.blocks) {
		return bad("state", len(s.blocks), len(r.p.blocks))
	}
	for i, b := range r.p.blocks {
		if len(s.blocks[i]) != len(b.values) {
			return bad("parameters", len(s.blocks[i]), len(b.values))
		}
		copy(b.values, s.blocks[i])
		if err := b.opt.restore(s.Counts[i], s.moments[i]); err != nil {
			return fmt.Errorf("go on from step %d: %w", s.Step, err)
		}
	}
	r.p.make()
	r.r.Steps, r.r.BestStep, r.r.Best, r.r.Loss, r.r.Valid = s.Step, s.BestStep, slices.Clone(s.best), float64(s.Loss), s.Valid
	r.evaluated, r.worse, r.mark = s.Evaluated, s.Worse, float64(s.Mark)
	r.away = runaway{First: float64(s.Away.First), Limit: float64(s.Away.Limit), Steps: s.Away.Steps, GoodStep: s.Away.GoodStep, Good: slices.Clone(s.good)}
	return nil
}

// A state's file is a safetensors file with the matrices and, in its metadata, the scalars, the identity and a hash of it all.
const (
	stateKey    = "ptune_state"
	identityKey = "identity"
	hashKey     = "sha256"
	stateFormat = "1"
)

// before is the state that the last one replaced.
func before(path string) string { return path + ".before" }

// Save writes the state. The one before stays beside it, so that there is always a whole one.
func (s *State) Save(path string) error {
	floats := []tensorfile.Tensor{tensorfile.Floats("best", []int{len(s.best)}, s.best)}
	if len(s.good) > 0 {
		floats = append(floats, tensorfile.Floats("good", []int{len(s.good)}, s.good))
	}
	for i, b := range s.blocks {
		floats = append(floats, tensorfile.Floats(fmt.Sprintf("block.%d", i), []int{len(b)}, b))
		for k, m := range s.moments[i] {
			data := make([]byte, 0, 8*len(m))
			for _, v := range m {
				data = binary.LittleEndian.AppendUint64(data, math.Float64bits(v))
			}
			floats = append(floats, tensorfile.Tensor{Name: fmt.Sprintf("moment.%d.%d", i, k), DType: "F64", Shape: []int{len(m)}, Data: data})
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
	meta := map[string]string{"format": stateFormat, stateKey: string(body), identityKey: string(identity)}
	meta[hashKey] = stateHash(meta, floats)
	if err := os.Rename(path, before(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write state: %w", err)
	}
	return tensorfile.Write(path, floats, meta)
}

// stateHash is over everything a state's file says.
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

// LoadState reads the state at path, or if that is damaged or gone the one before it; damage then says what was wrong with the last.
// An error that is fs.ErrNotExist means that there is neither.
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
		return nil, errors.New("it is no state of a run of this ptune")
	}
	var tensors []tensorfile.Tensor
	for _, t := range f.Tensors() {
		tensors = append(tensors, t)
	}
	if got := stateHash(f.Meta, tensors); got != f.Meta[hashKey] {
		return nil, errors.New("it is damaged: its hash is not what it says")
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
		var ms []moments
		for k := 0; ; k++ {
			t, ok := f.Tensor(fmt.Sprintf("moment.%d.%d", i, k))
			if !ok {
				break
			}
			m := make(moments, len(t.Data)/8)
			for j := range m {
				m[j] = math.Float64frombits(binary.LittleEndian.Uint64(t.Data[8*j:]))
			}
			ms = append(ms, m)
		}
		s.moments = append(s.moments, ms)
	}
	return s, nil
}
