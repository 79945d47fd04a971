package prompt_test

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ptune/internal/param"
	"ptune/internal/prompt"
	"ptune/internal/tensorfile"
)

const loraDir = "../../testdata/lora"

// modulesOf returns the modules that the LoRA in dir targets.
func modulesOf(t *testing.T, dir string) []param.Module {
	t.Helper()
	f, err := tensorfile.Open(filepath.Join(dir, "adapter_model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var modules []param.Module
	for name, a := range f.Tensors() {
		name, isA := strings.CutSuffix(name, param.LoRAA)
		if !isA {
			continue
		}
		b, ok := f.Tensor(name + param.LoRAB)
		if !ok {
			t.Fatalf("%s has no B of %s", dir, name)
		}
		name = strings.TrimPrefix(name, "base_model.model.")
		modules = append(modules, param.Module{Name: name, Out: b.Shape[0], In: a.Shape[1]})
	}
	return modules
}

func TestALoRAIsWrittenWithPEFTsBytes(t *testing.T) {
	dirs, err := filepath.Glob(loraDir + "/*/adapter_config.json")
	if err != nil || len(dirs) != 8 {
		t.Fatalf("found %d goldens (%v), want 8", len(dirs), err)
	}
	for _, path := range dirs {
		dir := filepath.Dir(path)
		modelType := filepath.Base(dir)
		if strings.HasPrefix(modelType, "gpt2") {
			modelType = "gpt2" // its matrices are stored [In, Out]: fan_in_fan_out
		}
		l, err := prompt.LoadLoRA(dir, modelType, modulesOf(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(l.Targets)
		to := filepath.Join(t.TempDir(), "new", "lora")
		for range 2 { // over itself too
			if err := l.Save(to, filepath.Base(dir)); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"adapter_config.json", "adapter_model.safetensors"} {
			got, err := os.ReadFile(filepath.Join(to, name))
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s is\n%.1500s\nwant\n%.1500s", name, got, want)
			}
		}
	}
}

func TestALoRAThatPtuneDoesNotSupportIsRefused(t *testing.T) {
	dir := filepath.Join(loraDir, "llama-gqa-tied-f32")
	modules := modulesOf(t, dir)
	config, err := os.ReadFile(filepath.Join(dir, "adapter_config.json"))
	if err != nil {
		t.Fatal(err)
	}
	weights, err := os.ReadFile(filepath.Join(dir, "adapter_model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	for change, want := range map[string]string{
		`"peft_type": "PREFIX_TUNING"`:   "of type \"PREFIX_TUNING\", want LORA",
		`"task_type": "SEQ_CLS"`:         "for the task SEQ_CLS",
		`"r": 0`:                         "r is 0",
		`"lora_alpha": -1`:               "lora_alpha -1",
		`"bias": "all"`:                  "ptune does not support",
		`"use_dora": true`:               "ptune does not support",
		`"use_rslora": true`:             "ptune does not support",
		`"rank_pattern": {"q_proj": 4}`:  "ptune does not support",
		`"modules_to_save": ["lm_head"]`: "ptune does not support",
		`"layers_to_transform": [0]`:     "ptune does not support",
		`"target_modules": ".*q_proj"`:   "want a list of names",
		`"target_modules": ["magic"]`:    "no such module; it has ",
		`"target_modules": 7`:            "target_modules is 7, want a list of names",
		`"target_modules": "q_proj"`:     "has 42 tensors, want 6",
		`"target_modules": ["q_proj"]`:   "has 42 tensors, want 6",
		`"r": 4`:                         "has shape [",
	} {
		to := t.TempDir()
		var c map[string]any
		if err := json.Unmarshal(config, &c); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte("{"+change+"}"), &c); err != nil {
			t.Fatal(err)
		}
		changed, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(to, "adapter_config.json"), changed, 0o644)
		os.WriteFile(filepath.Join(to, "adapter_model.safetensors"), weights, 0o644)
		if _, err := prompt.LoadLoRA(to, "llama", modules); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v, want one that contains %q", change, err, want)
		}
	}
}

func TestANewLoRATargetsPEFTsModulesAndStartsAtTheBase(t *testing.T) {
	modules := []param.Module{
		{Name: "layers.0.q_proj", Out: 6, In: 16}, {Name: "layers.0.k_proj", Out: 4, In: 16},
		{Name: "layers.0.v_proj", Out: 4, In: 16}, {Name: "layers.0.fc1", Out: 9, In: 16},
		{Name: "layers.0.fc2", Out: 16, In: 9},
	}
	for modelType, want := range map[string][]int{"llama": {0, 2}, "phi": {0, 2, 3, 4}} {
		c := prompt.LoRAConfig{Rank: 3, Alpha: 6}
		l, err := prompt.NewLoRA(c, modelType, modules, 5)
		if err != nil {
			t.Fatal(err)
		}
		if l.Scale() != 2 || len(l.Params) != 2*len(want) {
			t.Fatalf("%s: scale %g, %d tensors, want 2 and %d", modelType, l.Scale(), len(l.Params),
				2*len(want))
		}
		for i, at := range want {
			m, a, b := modules[at], l.Params[2*i], l.Params[2*i+1]
			if a.Name != m.Name+param.LoRAA || !slices.Equal(a.Shape, []int{3, m.In}) ||
				b.Name != m.Name+param.LoRAB || !slices.Equal(b.Shape, []int{m.Out, 3}) {
				t.Errorf("%s: %s %v and %s %v for %+v", modelType, a.Name, a.Shape, b.Name, b.Shape, m)
			}
			bound := float32(1 / math.Sqrt(float64(m.In)))
			most, least := slices.Max(a.Values), slices.Min(a.Values)
			if most > bound || least < -bound || most < bound/2 || least > -bound/2 {
				t.Errorf("%s: A is drawn from %g to %g, want ±%g", modelType, least, most, bound)
			}
			if slices.Max(b.Values) != 0 || slices.Min(b.Values) != 0 {
				t.Errorf("%s: B is not zero", modelType)
			}
		}
		again, _ := prompt.NewLoRA(c, modelType, modules, 5)
		other, _ := prompt.NewLoRA(c, modelType, modules, 6)
		a := l.Params[0].Values
		if !slices.Equal(a, again.Params[0].Values) || slices.Equal(a, other.Params[0].Values) {
			t.Errorf("%s: the draws do not depend on the seed alone", modelType)
		}
	}
}

func TestAnUnknownTargetIsRefusedWithTheModulesThatThereAre(t *testing.T) {
	modules := []param.Module{
		{Name: "layers.0.q_proj", Out: 6, In: 16}, {Name: "layers.1.q_proj", Out: 6, In: 16},
		{Name: "head", Out: 9, In: 16},
	}
	_, err := prompt.NewLoRA(prompt.LoRAConfig{Rank: 1, Alpha: 1, Targets: []string{"magic"}}, "llama", modules, 0)
	want := `LoRA targets "magic", but the base has no such module; it has q_proj, head`
	if err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
}

func TestSavedParametersAreFilledInAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "all.safetensors")
	make := func() []*param.Tensor { return []*param.Tensor{param.New("a", 2, 3), param.New("b", 4)} }
	saved, got := make(), make()
	for _, p := range saved {
		for i := range p.Values {
			p.Values[i] = float32(i) + 0.5
		}
	}
	if err := prompt.SaveParams(path, saved); err != nil {
		t.Fatal(err)
	}
	if err := prompt.FillParams(path, got); err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if !slices.Equal(got[i].Values, saved[i].Values) {
			t.Errorf("%s is %v, want %v", got[i].Name, got[i].Values, saved[i].Values)
		}
	}
	if err := prompt.FillParams(path, got[:1]); err == nil {
		t.Error("a file with one more tensor was accepted")
	}
}
