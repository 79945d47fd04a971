package model_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"ptune/internal/batch"
	"ptune/internal/kernels"
	"ptune/internal/model"
)

// strange lists the values that the test gives to each key of every golden's config.json.
var strange = []any{0, -1, 3, 0.5, 1 << 40, true, nil, "x", []any{1}, map[string]any{}}

// A checkpoint with one changed setting in config.json is refused, or it loads and runs.
func TestNoSettingOfAConfigPanics(t *testing.T) {
	pool, err := kernels.New(kernels.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	refused, ran := 0, 0
	seen := map[string]bool{} // one golden of each model_type and rope_type
	for _, path := range goldenPaths(t) {
		dir := filepath.Dir(path)
		weights, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
		if err != nil {
			continue // in shards
		}
		data, err := os.ReadFile(filepath.Join(dir, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		try := func(config map[string]any, what string) {
			changed, err := json.Marshal(config)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if r := recover(); r != nil {
					t.Errorf("%s: %s: panic: %v", filepath.Base(dir), what, r)
				}
			}()
			files := fstest.MapFS{"config.json": {Data: changed}, "model.safetensors": {Data: weights}}
			m, err := model.LoadFS("m", files, pool)
			if err != nil {
				refused++
				return
			}
			defer m.Close()
			// NLL returns an operator's panic as an error.
			f := batch.Pack([]int{2}, []batch.Example{{IDs: []int32{1, 5, 7}, From: 1}})
			_, err = m.NLL(make([]float32, 2*m.Hidden), f)
			if err != nil && !strings.Contains(err.Error(), "positions") {
				t.Errorf("%s: %s: the model was loaded, but it fails: %v", filepath.Base(dir), what, err)
			}
			ran++
		}
		var config map[string]any
		if err := json.Unmarshal(data, &config); err != nil {
			t.Fatal(err)
		}
		kind := fmt.Sprint(config["model_type"])
		for _, key := range []string{"rope_parameters", "rope_scaling"} {
			if p, ok := config[key].(map[string]any); ok {
				kind += fmt.Sprint(p["rope_type"])
			}
		}
		if seen[kind] {
			continue
		}
		seen[kind] = true
		for _, inner := range []string{"", "rope_parameters", "rope_scaling"} {
			at := config
			if inner != "" {
				var ok bool
				if at, ok = config[inner].(map[string]any); !ok {
					continue
				}
			}
			for key, had := range at {
				switch key {
				case "architectures", "transformers_version", "dtype", "initializer_range", "model_type":
					continue
				}
				for _, v := range strange {
					at[key] = v
					try(config, fmt.Sprintf("%s %s = %v", inner, key, v))
				}
				delete(at, key)
				try(config, fmt.Sprintf("without %s %s", inner, key))
				at[key] = had
			}
		}
	}
	t.Logf("%d refused, %d ran", refused, ran)
}
