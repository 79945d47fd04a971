# ptune: `make demo` and `make test` need Go, Rust (cargo), a C compiler and make. Targets that
# compare with PEFT or make goldens also need Python 3. `make help` lists all targets.

# The tokenizer library is built once for each version that go.mod pins.
BUILT := lib/tokenizers-$(shell sed -n 's|.*github.com/daulet/tokenizers v||p' go.mod)
LIBTOKENIZERS ?= $(BUILT)/libtokenizers.a
export CGO_ENABLED := 1
export CGO_LDFLAGS := -L$(abspath $(dir $(LIBTOKENIZERS)))
GO ?= go
VENV ?= .venv
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

.PHONY: help build install test lint demo bench bench-peer arm64 macos race sanitize torture fuzz golden peer quality quality-real journeys load serve-faults base manifests linked dist clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

build: bin/ptune ## build bin/ptune

bin/ptune: $(LIBTOKENIZERS) FORCE
	$(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o $@ ./cmd/ptune

# Builds the tokenizer library from the Rust source of the pinned Go module. Link-time optimisation
# makes ptune 13 MB smaller and its start faster. LIBTOKENIZERS=path/libtokenizers.a uses a library
# that you have already built.
$(BUILT)/libtokenizers.a:
	mkdir -p $(BUILT)
	$(GO) mod download github.com/daulet/tokenizers
	CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 CARGO_TARGET_DIR=$(abspath lib/target) \
		cargo build --release --locked \
		--manifest-path "$$($(GO) list -m -f '{{.Dir}}' github.com/daulet/tokenizers)/Cargo.toml"
	cp lib/target/release/libtokenizers.a $@
	rm -rf lib/target

PREFIX ?= /usr/local
install: build ## install the program, manual pages and completions below PREFIX (default /usr/local)
	DESTDIR="$(DESTDIR)" sh packaging/install.sh bin/ptune "$(PREFIX)"

test: $(LIBTOKENIZERS) ## run all tests (about six minutes after the first build)
	$(GO) test -timeout 20m ./...
	$(MAKE) fuzz
	@test -d "$${PTUNE_SHARED:-../shared}/models" || \
		echo "ptune: $${PTUNE_SHARED:-../shared} has no models: the tests in cmd/ptune/shared_test.go did nothing"

lint: $(LIBTOKENIZERS) ## run gofmt, go vet, staticcheck, actionlint and go mod tidy
	test -z "$$(gofmt -l cmd internal | tee /dev/stderr)"
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12 configs/ci/github.yaml
	$(GO) mod tidy -diff

manifests: ## check packaging's Kubernetes manifests against the API's types, in a module of its own
	cd packaging/kubernetes && $(GO) test -count=1 .

linked: ## write docs/linked.md: all linked libraries with versions and licences
	sh packaging/linked.sh > docs/linked.md

dist: build ## make a release archive: program, shell completions, manual pages, licences
	sh packaging/dist.sh bin/ptune $(VERSION)

demo: build ## train two soft prompts on the built-in model, show before and after (a minute)
	@sh internal/demo/demo.sh

BENCH_MODEL ?= .bench/smollm2-135m-float32
bench: $(LIBTOKENIZERS) ## run the Go benchmarks of kernels and of a training step
	@mkdir -p .bench
	test ! -d $(BENCH_MODEL) || export PTUNE_BENCH_MODEL=$(abspath $(BENCH_MODEL)); \
		$(GO) test -run '^$$' -bench . -benchtime 3s ./internal/kernels ./internal/model | tee .bench/go.txt

bench-peer: build $(VENV)/bin/python ## measure ptune and PEFT in turn, write docs/performance.md (an hour)
	$(VENV)/bin/python testdata/bench.py bin/ptune
	$(MAKE) bench
	$(VENV)/bin/python testdata/performance.py .bench/go.txt

ARM64 ?= aarch64-linux-gnu-
arm64: ## cross-compile the NEON kernels, and test them if qemu-aarch64 is installed
	@mkdir -p .bench
	GOARCH=arm64 CC=$(ARM64)gcc $(GO) test -c -o .bench/kernels-arm64.test ./internal/kernels
	@if command -v qemu-aarch64 >/dev/null; then qemu-aarch64 -L /usr/$(ARM64:-=) .bench/kernels-arm64.test; \
		else echo "ptune: no qemu-aarch64: the NEON kernels were compiled, but not tested"; fi

ZIG ?= $(VENV)/bin/python -m ziglang
macos: ## compile the kernels and the other C code for macOS on arm64 (pip install ziglang)
	CGO_ENABLED=1 GOOS=darwin GOARCH=arm64 CC="$(ZIG) cc -target aarch64-macos" \
		$(GO) build ./internal/kernels ./internal/process

race: $(LIBTOKENIZERS) ## run all tests with the race detector
	$(GO) test -race ./...

sanitize: $(LIBTOKENIZERS) ## test kernels and operators with the address and undefined-behaviour sanitizers
	$(GO) test -asan ./internal/kernels ./internal/ops
	CGO_CFLAGS="-O2 -g -fsanitize=undefined -fno-sanitize-recover=all" CGO_LDFLAGS="$$CGO_LDFLAGS -lubsan" \
		$(GO) test ./internal/kernels ./internal/ops

# In this order: ends a run KILLS times at random moments and with each of eight signals at each of
# 100 steps; compares 100,000 safetensors files and a million texts with the Rust libraries; gives
# each fuzzer ten million inputs; runs the sanitizers and the race detector.
KILLS ?= 1000
torture: $(VENV)/bin/python ## run the long tests for hours: kills, signals, fuzzing, sanitizers, races
	$(GO) test ./cmd/ptune -count=1 -timeout 0 -v -run 'KilledAgain|EachSignal' -kills $(KILLS) -steps 100
	$(MAKE) manifests
	@mkdir -p .bench
	$(VENV)/bin/python testdata/differential.py --files 100000 --seed $(SEED) .bench/differential.jsonl
	$(GO) test ./internal/tensorfile -count=1 -v -run RustLibrary -differential $(abspath .bench/differential.jsonl)
	for part in 1 2 3 4 5 6 7 8 9 10; do rm -rf .bench/texts && \
		$(VENV)/bin/python testdata/tokenizers/live.py --texts 11200 --seed $(SEED)$$part .bench/texts && \
		$(GO) test ./internal/tokenize -count=1 -run TokenizersLibrary -goldens $(abspath .bench/texts) || exit 1; done
	$(MAKE) fuzz FUZZTIME=10000000x
	$(MAKE) sanitize race

FUZZTIME ?= 20s
FUZZERS = grep -roE '^func Fuzz[A-Za-z0-9]*' --include='*_test.go' internal | sed 's|/[^/]*:func | |'
fuzz: $(LIBTOKENIZERS) ## run each fuzzer for FUZZTIME (default 20s; 1000000x: a million inputs), two at a time
	@$(FUZZERS) | xargs -P 2 -I{} env GO=$(GO) sh -c 'sh testdata/fuzz.sh {} $(FUZZTIME) 1'

# Each package in MUTANTS is changed in one place at a time, and its own tests should fail.
# testdata/mutants.txt lists the changes that cannot change a result. The tool is no part of go.mod.
MUTANTS ?= batch prompt eval infer data config train tokenize
GREMLINS := lib/gremlins-0.6.0/gremlins
mutants: $(LIBTOKENIZERS) $(GREMLINS) ## change the code in one place at a time and count what the tests find (hours)
	@mkdir -p .bench
	@rc=0; for p in $(MUTANTS); do \
		nice -n 15 $(GREMLINS) unleash --workers 1 --timeout-coefficient 20 ./internal/$$p >.bench/mutants-$$p.txt || exit 1; \
		python3 testdata/mutants.py $$p .bench/mutants-$$p.txt || rc=1; done; exit $$rc

$(GREMLINS):
	GOBIN=$(abspath $(dir $(GREMLINS))) $(GO) install github.com/go-gremlins/gremlins/cmd/gremlins@v0.6.0

$(VENV)/bin/python:
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install -q torch==2.15.0 transformers==5.23.0 peft==0.21.2 tensorboard==2.21.0

golden: $(VENV)/bin/python ## make the goldens in testdata/ again with transformers and PEFT
	$(VENV)/bin/python testdata/golden/make.py
	$(VENV)/bin/python testdata/tokenizers/make.py
	$(VENV)/bin/python testdata/adapters/make.py
	$(VENV)/bin/python testdata/lora/make.py
	$(VENV)/bin/python testdata/sampling.py testdata/sampling.json
	$(VENV)/bin/python testdata/differential.py --files 500 testdata/differential.jsonl

# ARCH limits the comparison to one model_type. TOKENIZERS and TEMPLATES name folders of tokenizers
# and chat templates to compare in addition.
ARCH ?=
SEED ?= $(shell date +%s)
peer: build $(VENV)/bin/python ## compare with transformers and PEFT on fresh random models (ARCH=qwen3: one model_type)
	rm -rf .bench/peer
	@mkdir -p .bench/peer
	@echo "seed $(SEED)"
	$(VENV)/bin/python testdata/golden/make.py --out .bench/peer --seed $(SEED) $(ARCH) >.bench/peer.log 2>&1 || \
		{ cat .bench/peer.log; exit 1; }
	$(GO) test ./internal/model -count=1 -v -run 'Page|Logits|Gradient|Steps|Greedy' \
		-goldens $(abspath .bench/peer) >.bench/peer.log || \
		{ grep -E 'FAIL|want|differs' .bench/peer.log; exit 1; }
	@grep -E '^ *\||^ok' .bench/peer.log
	@test -n "$(ARCH)" || { rm -rf .bench/tokenizers && \
		$(VENV)/bin/python testdata/tokenizers/live.py --seed $(SEED) .bench/tokenizers $(TOKENIZERS) && \
		$(GO) test ./internal/tokenize -count=1 -run TokenizersLibrary -goldens $(abspath .bench/tokenizers); }
	@test -n "$(ARCH)" || { $(VENV)/bin/python testdata/chat/make.py .bench/chat.json testdata/chat $(TEMPLATES) && \
		$(GO) test ./internal/chat -count=1 -v -run Transformers -goldens $(abspath .bench/chat.json) | \
			grep -E 'chat_test|^ok|FAIL'; }
	@test -n "$(ARCH)" || { $(VENV)/bin/python testdata/sampling.py .bench/sampling.json $(SEED) && \
		$(GO) test ./internal/infer -count=1 -run Transformers -goldens $(abspath .bench/sampling.json); }
	@test -n "$(ARCH)" || $(VENV)/bin/python testdata/exchange.py bin/ptune --seed $(SEED)
	@test -n "$(ARCH)" || $(VENV)/bin/python testdata/peer.py bin/ptune
	@test -n "$(ARCH)" || $(VENV)/bin/python testdata/board.py bin/ptune
	@test -n "$(ARCH)" || $(VENV)/bin/python testdata/hub.py bin/ptune
	@test -n "$(ARCH)" || { $(VENV)/bin/pip install -q openai==3.57.0 typesafe-sdk==0.7.5 websocket-client==1.9.2 && \
		$(VENV)/bin/python testdata/serve.py bin/ptune; }

quality: build $(VENV)/bin/python ## compare prompts with a grid of PEFT settings, write docs/quality.md (an hour, resumable)
	$(VENV)/bin/python testdata/quality.py bin/ptune

# BASES names the directories of the base models. REAL has other options of testdata/real.py, for
# example REAL="--compute f32,bf16 --set max_decrease=1".
quality-real: build ## train on real base models, write docs/quality.md (BASES="DIR DIR"; hours, resumable)
	python3 testdata/real.py bin/ptune $(BASES) $(REAL)

load: build $(VENV)/bin/python ## measure ptune serve beside servers of PEFT and llama.cpp (BASE=DIR LLAMA=llama-server GGUF=FILE; an hour)
	$(VENV)/bin/python testdata/load.py bin/ptune $(BASE) $(if $(LLAMA),--llama $(LLAMA) --gguf $(GGUF))

serve-faults: build ## do to ptune serve what clients, operators and disks do to it (minutes)
	python3 testdata/serve_faults.py bin/ptune

journeys: $(VENV)/bin/python ## walk a new user's journeys in a fresh clone (MODEL=dir with SmolLM2-135M-Instruct; half an hour)
	VENV=$(VENV) sh testdata/journeys.sh $(MODEL)

base: $(VENV)/bin/python ## train the built-in model and make its rows again (half an hour)
	$(VENV)/bin/python internal/demo/make/train.py internal/demo/base
	$(VENV)/bin/python internal/demo/make/rows.py internal/demo/data

clean: ## remove bin, lib and runs
	rm -rf bin lib runs

FORCE:
