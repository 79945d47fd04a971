# ptune: make demo, make test. Needs Go, Rust (cargo), a C compiler and make; Python only for golden, peer and base.

# built once for the version that go.mod pins
BUILT := lib/tokenizers-$(shell sed -n 's|.*github.com/daulet/tokenizers v||p' go.mod)
LIBTOKENIZERS ?= $(BUILT)/libtokenizers.a
export CGO_ENABLED := 1
export CGO_LDFLAGS := -L$(abspath $(dir $(LIBTOKENIZERS)))
GO ?= go
VENV ?= .venv
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

.PHONY: help build test lint demo bench bench-peer arm64 race sanitize torture fuzz golden peer quality base linked dist clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

build: bin/ptune ## build bin/ptune; TAGS=parquet: one that also reads Parquet

bin/ptune: $(LIBTOKENIZERS) FORCE
	$(GO) build -trimpath $(if $(TAGS),-tags $(TAGS)) -ldflags "-X main.version=$(VERSION)" -o $@ ./cmd/ptune

# The tokenizer library, from the Rust source of the pinned Go module, optimised as a whole: ptune becomes 13 MB smaller and begins sooner.
# Give another with LIBTOKENIZERS=path/libtokenizers.a.
$(BUILT)/libtokenizers.a:
	mkdir -p $(BUILT)
	$(GO) mod download github.com/daulet/tokenizers
	CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 CARGO_TARGET_DIR=$(abspath lib/target) \
		cargo build --release --locked --manifest-path "$$($(GO) list -m -f '{{.Dir}}' github.com/daulet/tokenizers)/Cargo.toml"
	cp lib/target/release/libtokenizers.a $@
	rm -rf lib/target

test: $(LIBTOKENIZERS) ## run all tests (about six minutes after the first build)
	$(GO) test ./...
	$(GO) test -tags parquet ./internal/data
	$(MAKE) fuzz
	@test -d "$${PTUNE_SHARED:-../shared}/models" || echo "ptune: no real models in $${PTUNE_SHARED:-../shared}: the tests in cmd/ptune/shared_test.go had nothing to run on"

lint: $(LIBTOKENIZERS) ## gofmt, vet, staticcheck, go mod tidy
	test -z "$$(gofmt -l cmd internal | tee /dev/stderr)"
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) mod tidy -diff

linked: ## list what is linked in, with versions and licences, in docs/linked.md
	sh packaging/linked.sh > docs/linked.md

dist: build ## make a release archive: program, completions, manual pages, licences
	sh packaging/dist.sh bin/ptune $(VERSION)

demo: build ## train two soft prompts on the embedded base, before and after (about a minute)
	@sh internal/demo/demo.sh

BENCH_MODEL ?= .bench/smollm2-135m-float32
bench: $(LIBTOKENIZERS) ## Go benchmarks of kernels and steps: GFLOP/s beside the peak of the same run
	@mkdir -p .bench
	test ! -d $(BENCH_MODEL) || export PTUNE_BENCH_MODEL=$(abspath $(BENCH_MODEL)); \
		$(GO) test -run '^$$' -bench . -benchtime 3s ./internal/kernels ./internal/model | tee .bench/go.txt

bench-peer: build $(VENV)/bin/python ## measure beside PEFT, in turn, and write docs/performance.md (an hour)
	$(VENV)/bin/python testdata/bench.py bin/ptune
	$(MAKE) bench
	$(VENV)/bin/python testdata/performance.py .bench/go.txt

ARM64 ?= aarch64-linux-gnu-
arm64: ## compile the kernels for NEON with a cross compiler and, where qemu-aarch64 is, test them
	@mkdir -p .bench
	GOARCH=arm64 CC=$(ARM64)gcc $(GO) test -c -o .bench/kernels-arm64.test ./internal/kernels
	@if command -v qemu-aarch64 >/dev/null; then qemu-aarch64 -L /usr/$(ARM64:-=) .bench/kernels-arm64.test; \
		else echo "ptune: no qemu-aarch64: the NEON kernels were compiled, not run"; fi

race: $(LIBTOKENIZERS) ## run the tests with the race detector
	$(GO) test -race ./...

sanitize: $(LIBTOKENIZERS) ## run the C kernels and the operators under the address and undefined-behaviour sanitizers
	$(GO) test -asan ./internal/kernels ./internal/ops
	CGO_CFLAGS="-O2 -g -fsanitize=undefined -fno-sanitize-recover=all" CGO_LDFLAGS="$$CGO_LDFLAGS -lubsan" $(GO) test ./internal/kernels ./internal/ops

KILLS ?= 1000
torture: $(VENV)/bin/python ## for hours: KILLS ends of a run, eight signals at 100 steps, ten million inputs a fuzzer, what the Rust libraries make of 100,000 files and a million texts, sanitizers, races
	$(GO) test ./cmd/ptune -count=1 -timeout 0 -v -run 'KilledAgain|EachSignal' -kills $(KILLS) -steps 100
	@mkdir -p .bench
	$(VENV)/bin/python testdata/differential.py --files 100000 --seed $(SEED) .bench/differential.jsonl
	$(GO) test ./internal/tensorfile -count=1 -v -run RustLibrary -differential $(abspath .bench/differential.jsonl)
	for part in 1 2 3 4 5 6 7 8 9 10; do rm -rf .bench/texts && $(VENV)/bin/python testdata/tokenizers/live.py --texts 11200 --seed $(SEED)$$part .bench/texts && \
		$(GO) test ./internal/tokenize -count=1 -run TokenizersLibrary -goldens $(abspath .bench/texts) || exit 1; done
	$(MAKE) fuzz FUZZTIME=10000000x
	$(MAKE) sanitize race

FUZZTIME ?= 20s
FUZZERS = grep -roE '^func Fuzz[A-Za-z0-9]*' --include='*_test.go' internal | sed 's|/[^/]*:func | |'
fuzz: $(LIBTOKENIZERS) ## run each fuzzer for FUZZTIME (20s, or 1000000x for as many inputs), two at a time
	@$(FUZZERS) | xargs -P 2 -I{} env GO=$(GO) sh -c 'sh testdata/fuzz.sh {} $(FUZZTIME) 1'

$(VENV)/bin/python:
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install -q torch==2.15.0 transformers==5.23.0 peft==0.21.2 tensorboard==2.21.0

golden: $(VENV)/bin/python ## make the goldens again with transformers and PEFT
	$(VENV)/bin/python testdata/golden/make.py
	$(VENV)/bin/python testdata/tokenizers/make.py
	$(VENV)/bin/python testdata/adapters/make.py
	$(VENV)/bin/python testdata/lora/make.py
	$(VENV)/bin/python testdata/differential.py --files 500 testdata/differential.jsonl

ARCH ?=
SEED ?= $(shell date +%s)
peer: build $(VENV)/bin/python ## compare with transformers and PEFT live: ARCH (a model_type; all of them if empty), fresh seeds
	rm -rf .bench/peer
	@mkdir -p .bench/peer
	@echo "seed $(SEED)"
	$(VENV)/bin/python testdata/golden/make.py --out .bench/peer --seed $(SEED) $(ARCH) >.bench/peer.log 2>&1 || { cat .bench/peer.log; exit 1; }
	$(GO) test ./internal/model -count=1 -v -run 'Page|Logits|Gradient|Steps|Greedy' -goldens $(abspath .bench/peer) >.bench/peer.log || { grep -E 'FAIL|want|differs' .bench/peer.log; exit 1; }
	@grep -E '^ *\||^ok' .bench/peer.log
	@test -n "$(ARCH)" || { rm -rf .bench/tokenizers && $(VENV)/bin/python testdata/tokenizers/live.py --seed $(SEED) .bench/tokenizers $(TOKENIZERS) && \
		$(GO) test ./internal/tokenize -count=1 -run TokenizersLibrary -goldens $(abspath .bench/tokenizers); }
	@test -n "$(ARCH)" || { $(VENV)/bin/python testdata/chat/make.py .bench/chat.json testdata/chat $(TEMPLATES) && \
		$(GO) test ./internal/chat -count=1 -v -run Transformers -goldens $(abspath .bench/chat.json) | grep -E 'chat_test|^ok|FAIL'; }
	@test -n "$(ARCH)" || $(VENV)/bin/python testdata/exchange.py bin/ptune --seed $(SEED)
	@test -n "$(ARCH)" || $(VENV)/bin/python testdata/peer.py bin/ptune
	@test -n "$(ARCH)" || $(VENV)/bin/python testdata/board.py bin/ptune
	@test -n "$(ARCH)" || $(VENV)/bin/python testdata/hub.py bin/ptune

quality: build $(VENV)/bin/python ## compare prompts with those of PEFT's grid, and write docs/quality.md (an hour; goes on where it stopped)
	$(VENV)/bin/python testdata/quality.py bin/ptune

base: $(VENV)/bin/python ## make the embedded base and its rows again (half an hour)
	$(VENV)/bin/python internal/demo/make/train.py internal/demo/base
	$(VENV)/bin/python internal/demo/make/rows.py internal/demo/data

clean: ## remove what was built
	rm -rf bin lib runs

FORCE:
