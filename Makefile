# One set of commands for people and for CI. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTO_VENV := .venv-proto
TORCH_VENV := .venv-torch
TRITON_VENV := .venv-triton
MUTATION_VENV := .venv-mutation
# The releases that the torch-marked tests are run with. onnx brings tests of its operators, more with each release.
TORCH := torch==2.14.1 torchvision==0.29.1 onnx==1.23.2
PROTO_FILES := $(shell find protos -name '*.proto')
PROTO_SERVICES := $(shell grep -lE '^service ' $(PROTO_FILES))
PIP := -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

# --- use it ---------------------------------------------------------------------------------------------------------
.PHONY: setup demo
setup: $(VENV)/.ready ## make .venv with all that serving on a CPU needs

$(VENV)/.ready: pyproject.toml
	@echo "making $(VENV): about half a minute"
	@$(PYTHON) -c 'import sys; sys.exit("Sluiceway needs Python 3.11 or newer; try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP) install --quiet --no-compile --editable '.[cpu,bench,top]'
	@touch $@

# One picture needs no more than a worker of each stage, and those start in half the time.
ONE_WORKER := SLUICEWAY_DETECTION__WORKERS=1 SLUICEWAY_RECOGNITION__WORKERS=1 SLUICEWAY_STAGES__OBJECTS__WORKERS=1

demo: setup ## read a page, then find the things in a photograph and read what stands on them
	@$(BIN)/sluiceway models pull --defaults
	@$(BIN)/sluiceway samples pull page.png bus.jpg --to out/samples
	@$(BIN)/sluiceway run out/samples/page.png --out out/demo
	@echo "now a YOLO model, whose weights have a licence of their own:"
	@$(BIN)/sluiceway models pull coco-v8n
	@$(ONE_WORKER) $(BIN)/sluiceway run out/samples/bus.jpg --config examples/objects.toml --out out/demo

# --- check it -------------------------------------------------------------------------------------------------------
.PHONY: dev test lint types check test-torch test-cuda
dev: $(VENV)/.dev

$(VENV)/.dev: $(VENV)/.ready
	@$(BIN)/python $(PIP) install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python $(PIP) install --quiet --editable '.[cpu,bench,top,onnx,calibration,heic,otel,pdf]' --group dev
	@touch $@

test: dev ## run the tests (no torch needed); with JOBS=2 several modules at a time
	$(BIN)/sluiceway models pull --tests
	$(BIN)/python -m pytest $(if $(JOBS),-n $(JOBS) --dist loadfile)

lint: dev ## ruff and the import rules of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: dev ## mypy --strict
	$(BIN)/mypy

check: lint types proto-check test ## everything that must pass before a commit

test-torch: $(TORCH_VENV)/.ready dev ## tests that compare with torch and ultralytics (5 GB environment)
	$(BIN)/sluiceway models pull --tests
	$(TORCH_VENV)/bin/python -m pytest -m torch

test-cuda: $(TORCH_VENV)/.ready dev ## tests that need an NVIDIA GPU (compiles graphs: about three minutes)
	$(BIN)/sluiceway models pull --tests
	$(TORCH_VENV)/bin/python -m pytest -m cuda

$(TORCH_VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(TORCH_VENV)
	$(TORCH_VENV)/bin/python $(PIP) install --quiet --upgrade 'pip>=25.1'
	$(TORCH_VENV)/bin/python $(PIP) install --quiet $(TORCH)
	$(TORCH_VENV)/bin/python $(PIP) install --quiet --editable '.[export,gpu,onnx,bench,top,otel,heic,pdf]' --group dev $(TORCH)
	touch $@

.PHONY: soak torture torture-planted fuzz licences
torture: dev ## 20,000 simulated clusters under faults, by seed, on two cores (one seed again: SEEDS=1 FIRST=17)
	$(BIN)/python -m sluiceway_simulation.torture --seeds $(or $(SEEDS),20000) --first $(or $(FIRST),0) --jobs $(or $(JOBS),2)

torture-planted: dev ## does torture find the faults that are planted on purpose?
	$(BIN)/python -m pytest -m 'slow or not slow' tests/unit/simulation/test_torture.py

soak: dev ## 100,000 requests with cancels, bad input and killed workers, and an account of each (about six minutes)
	$(BIN)/python benchmarks/soak.py --requests 100000 --seconds 1800

fuzz: dev ## a million mutated inputs, 120,000 of them decoded in real workers
	$(BIN)/python tests/fuzz/run.py

licences: dev ## list the licences of what the images contain
	$(BIN)/python deploy/licences.py

.PHONY: mutate-policy
mutate-policy: $(MUTATION_VENV)/.ready ## change the pool's policy line by line: which changes does no test notice? (30 minutes)
	$(MUTATION_VENV)/bin/python tests/mutation/policy.py

$(MUTATION_VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(MUTATION_VENV)
	$(MUTATION_VENV)/bin/python $(PIP) install --quiet --upgrade 'pip>=25.1'
	$(MUTATION_VENV)/bin/python $(PIP) install --quiet --group mutation
	touch $@

.PHONY: test-docs
test-docs: $(VENV)/.deploy ## run what README, examples and docs show, in a fresh clone of the last commit (10 minutes)
	$(BIN)/python tests/deploy/tools.py
	$(BIN)/python -m pytest -m slow tests/docs

.PHONY: test-observability
test-observability: dev ## break a cluster in every way under a real Prometheus: the right panel moves and the right alert fires (5 minutes)
	@for program in prometheus promtool; do command -v $$program >/dev/null \
		|| { echo "missing $$program: apt-get install --no-install-recommends prometheus" >&2; exit 1; }; done
	promtool check rules deploy/alerts/sluiceway.yml
	promtool test rules tests/deploy/alert_cases.yml
	$(BIN)/python -m pytest -m slow tests/observability

.PHONY: images
# More than the engine's own architecture needs a builder that can (docker buildx create --use) and a registry to push to:
# make images PLATFORMS=linux/amd64,linux/arm64 PUSH=registry.example.org/team
PLATFORMS ?=
PUSH ?=
TARGETS := orchestrator detection recognition-cpu
images: export SLUICEWAY_REVISION = $(shell git describe --always --dirty --abbrev=40 --exclude '*')
images: ## build the images of docker-compose.yml, labelled with the commit (PLATFORMS, PUSH: for others, to a registry)
ifeq ($(PLATFORMS),)
	docker compose build
else
	@test -n "$(PUSH)" || { echo "PLATFORMS wants PUSH=registry.example.org/team: an engine keeps its own architecture alone" >&2; exit 1; }
	$(foreach target,$(TARGETS),docker buildx build --platform $(PLATFORMS) --file deploy/docker/Dockerfile --target $(target) \
		--label org.opencontainers.image.revision=$(SLUICEWAY_REVISION) --sbom=true --provenance=mode=max \
		--tag $(PUSH)/sluiceway/$(target):$$($(PYTHON) deploy/version.py) --push . &&) true
endif

.PHONY: test-compose test-chart test-gpu-image test-kubernetes
$(VENV)/.deploy: $(VENV)/.dev
	@$(BIN)/python $(PIP) install --quiet --group deploy
	@touch $@

test-compose: $(VENV)/.deploy ## build the images and test the stack in containers (needs a Docker engine)
	$(BIN)/python -m pytest -m slow tests/deploy/test_compose_override.py tests/deploy/test_compose.py tests/deploy/test_compose_memory.py tests/deploy/test_compose_versions.py tests/deploy/test_release_images.py

test-gpu-image: $(VENV)/.deploy ## build the image with CUDA and test it without a GPU (25 GB of disk, 5 minutes)
	$(BIN)/python -m pytest -m slow tests/deploy/test_gpu_image.py

test-chart: $(VENV)/.deploy ## test the Helm chart, the manifests and the Dockerfiles (no cluster needed)
	$(BIN)/hadolint deploy/docker/Dockerfile tests/deploy/prometheus/Dockerfile tests/deploy/clients/Dockerfile
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python deploy/docker/lock.py --check
	$(BIN)/python tests/deploy/tools.py
	$(BIN)/python -m pytest -m slow tests/deploy/test_chart.py tests/deploy/test_chart_rendered.py tests/deploy/test_chart_stages.py tests/deploy/test_chart_pods.py tests/deploy/test_supply_chain.py

GRPC_JS := @grpc/grpc-js@1.14.7
test-kubernetes: $(VENV)/.deploy ## test the chart in the cluster of KUBECONFIG, with images built here (20 minutes)
	docker compose build
	docker build --quiet --file deploy/docker/Dockerfile --target recognition-cpu --build-arg RECOGNITION_MODELS=ppocrv5-mobile \
		--tag sluiceway/recognition-cpu:0.1.0-next .
	docker build --tag sluiceway-test/prometheus:1 tests/deploy/prometheus
	rm -rf build/kubernetes-clients && mkdir -p build/kubernetes-clients && cp tests/deploy/clients/* build/kubernetes-clients/
	npm install --prefix build/kubernetes-clients --no-save --no-package-lock --no-audit --no-fund --silent $(GRPC_JS)
	docker build --tag sluiceway-test/clients:1 build/kubernetes-clients
	$(BIN)/python tests/deploy/tools.py
	$(BIN)/python -m pytest -m slow tests/deploy/kubernetes

# --- release it -----------------------------------------------------------------------------------------------------
# IMAGES: none, cpu, or all (with CUDA: 25 GB of disk)
IMAGES ?= cpu
.PHONY: release test-release
release: $(VENV)/.deploy ## wheel, source distribution, chart, image archives and checksums, in dist/ (needs a Docker engine; IMAGES=none does not)
	$(BIN)/python deploy/release.py --to dist --images $(IMAGES)

test-release: $(VENV)/.deploy ## make a release, and install each of its parts where nothing else is (5 minutes)
	$(BIN)/python tests/deploy/tools.py
	$(BIN)/python -m pytest -m slow tests/deploy/test_release.py tests/e2e/test_wheel.py

# --- measure it -----------------------------------------------------------------------------------------------------
# Each prints a table, writes its ratios by name to out/, and fails below its bar.
# A Python with torch and onnx, for the naive variant of bench-detection; without one, an environment is made (5 GB).
TORCH_PYTHON ?= $(TORCH_VENV)/bin/python
.PHONY: accuracy bench bench-beside bench-detection bench-detection-gpu bench-documents bench-jpeg bench-overhead bench-client bench-knee bench-machine bench-orchestrator bench-overload bench-peers peers-report bench-prediction bench-priority bench-recognition bench-seeing bench-simulation bench-tune bench-wakes bench-watching bench-wire scaling
bench: bench-overhead bench-client bench-orchestrator ## the quick benchmarks (4 minutes; want a quiet machine)

bench-detection: dev $(if $(filter $(TORCH_VENV)/%,$(TORCH_PYTHON)),$(TORCH_VENV)/.ready) ## detection beside its bare backend and beside torch's defaults; draws docs/collapse.svg (8 minutes)
	$(BIN)/python benchmarks/detection.py --torch-python $(TORCH_PYTHON) --json out/bench-detection.json --chart docs/collapse.svg

bench-overhead: dev ## the cluster beside the same models called directly
	$(BIN)/python benchmarks/overhead.py --json out/bench-overhead.json

# OTHER is the checkout of another version: git worktree add ../other VERSION
bench-beside: dev ## this checkout beside another one (OTHER=path), in turns: orchestrator, client and overhead (15 minutes)
	$(BIN)/python benchmarks/beside.py --other $(OTHER) --json out/bench-beside.json

bench-client: dev ## the Python library beside bare stubs
	$(BIN)/python benchmarks/client.py --json out/bench-client.json

bench-knee: dev ## `sluiceway bench --find-knee` on a cluster whose knee is known (15 minutes; wants a quiet machine)
	$(BIN)/python benchmarks/knee.py --json out/bench-knee.json

# Goes on where it was cut short; FRESH=1 begins anew. TurboOCR needs Python 3.12 or newer: PEER_PYTHON=path.
bench-peers: dev ## what people would use instead, on the same weights and images (25 minutes, and an environment for each peer)
	$(BIN)/sluiceway models pull --defaults
	$(BIN)/python benchmarks/peers/run.py --peer-python $(PEER_PYTHON) $(if $(FRESH),--fresh) --json out/bench-peers.json

# Of runs on one machine or several: PEERS="out/bench-peers.json out/bench-peers-gpu.json"
PEERS ?= out/bench-peers.json
peers-report: dev ## put the figures of bench-peers, with machine and versions, into README.md and docs/performance.md
	$(BIN)/python benchmarks/peers/report.py $(PEERS)

bench-documents: dev ## a PDF of a hundred pages: the first regions, pages a second, memory; beside RapidOCR (8 minutes)
	$(BIN)/sluiceway models pull --defaults
	$(BIN)/sluiceway models pull ppocrv6-small-det ppocrv6-small
	$(BIN)/python benchmarks/documents.py --peer --json out/bench-documents.json

bench-prediction: dev ## predictions beside real runs: nine steady points and three steps of the load (12 minutes; wants a quiet machine)
	$(BIN)/sluiceway models pull --defaults
	$(BIN)/sluiceway samples pull bus.jpg page.png --to out/samples
	$(BIN)/python benchmarks/prediction.py out/samples/page.png out/samples/bus.jpg --json out/bench-prediction.json

bench-tune: dev ## what `sluiceway tune` recommends beside the best of every setting (12 minutes; wants a quiet machine)
	$(BIN)/sluiceway models pull --defaults
	$(BIN)/sluiceway samples pull bus.jpg page.png --to out/samples
	$(BIN)/python benchmarks/tune.py out/samples/page.png out/samples/bus.jpg --json out/bench-tune.json

bench-simulation: dev ## simulated seconds in a second of processor (a minute)
	$(BIN)/python benchmarks/simulation.py --json out/bench-simulation.json

scaling: dev ## the figures of docs/scaling.md: up to a thousand detectors simulated, and as many connections (20 minutes)
	$(BIN)/python benchmarks/scaling.py --json out/scaling.json
	$(BIN)/python benchmarks/scaling.py --minute --json out/scaling-minute.json

bench-priority: dev ## interactive requests while bulk work saturates the workers
	$(BIN)/python benchmarks/priority.py --json out/bench-priority.json

bench-overload: dev ## three times the load that the cluster can carry, with real models
	$(BIN)/sluiceway models pull --defaults
	$(BIN)/python benchmarks/overload.py

bench-wakes: dev ## how often the servers wake up, for an image and while they are idle (2 minutes)
	$(BIN)/sluiceway models pull --defaults
	$(BIN)/python benchmarks/wakes.py --json out/bench-wakes.json

bench-wire: dev ## what carrying crops costs, with a model that costs nothing
	$(BIN)/python benchmarks/wire.py --json out/bench-wire.json

# torch is only needed where there is a GPU.
RECOGNITION_VENV := $(if $(shell command -v nvidia-smi),$(TORCH_VENV),$(VENV))
bench-recognition: dev $(RECOGNITION_VENV)/.ready ## recognition bare, served and over the wire, on the GPU if there is one (4 minutes; 9 at first)
	$(BIN)/sluiceway models pull ppocrv5-mobile ppocrv6-tiny
	$(RECOGNITION_VENV)/bin/python benchmarks/recognition.py --json out/bench-recognition.json

bench-detection-gpu: $(TORCH_VENV)/.ready dev ## detection on a GPU beside all cores of its machine (4 minutes; 6 at first)
	$(BIN)/sluiceway models pull text-small
	$(TORCH_VENV)/bin/python benchmarks/detection_gpu.py --json out/bench-detection-gpu.json

bench-jpeg: $(TORCH_VENV)/.ready dev ## decoding on a GPU beside the CPU's threads (half a minute)
	$(TORCH_VENV)/bin/python benchmarks/jpeg_decoding.py --json out/bench-jpeg.json

bench-machine: dev ## what `sluiceway up` carries on this machine (SCALE="orchestrator=4 detection=2")
	$(BIN)/sluiceway samples pull bus.jpg page.png --to out/samples
	$(BIN)/python benchmarks/machine.py $(foreach item,$(SCALE),--scale $(item)) --json out/bench-machine.json

bench-seeing: dev ## what metrics, logs, stories and traces cost: CPU time an image of the whole cluster, in pairs (4 minutes)
	$(BIN)/sluiceway samples pull bus.jpg
	$(BIN)/python benchmarks/seeing.py --json out/bench-seeing.json

bench-watching: dev ## the same of an orchestrator alone, whose stages compute nothing (3 minutes; wants two quiet cores)
	$(BIN)/python benchmarks/watching.py --json out/bench-watching.json
	$(BIN)/python benchmarks/recorder.py --json out/bench-recorder.json

# TurboOCR needs Python 3.12 or newer, for an environment of its own; OTHER is the checkout of an earlier version, if there is one.
PEER_PYTHON ?= python3.12
accuracy: dev ## how well text is read, class by class, beside other readers (an hour; goes on where it was cut short)
	$(BIN)/sluiceway models pull ppocrv6-tiny-det ppocrv6-small-det ppocrv6-tiny ppocrv6-small
	$(BIN)/python -m benchmarks.accuracy --peer-python $(PEER_PYTHON) $(if $(OTHER),--other $(OTHER)) --json out/accuracy.json

bench-orchestrator: dev ## the orchestrator with stages that answer at once, beside a do-nothing proxy
	$(BIN)/python benchmarks/orchestrator.py --json out/bench-orchestrator.json

# --- the detector ---------------------------------------------------------------------------------------------------
.PHONY: train-detector
train-detector: $(TORCH_VENV)/.ready ## make the corpus, train text-nano and export it (a CUDA machine; packages of training/text_detector/packages.txt)
	$(TORCH_VENV)/bin/python -m training.text_detector --work build/text_detector

# --- the contract ---------------------------------------------------------------------------------------------------
.PHONY: proto proto-check proto-image
GENERATE = $(PROTO_VENV)/bin/python -m grpc_tools.protoc -I protos

proto: $(PROTO_VENV)/.ready ## regenerate the Python stubs from protos/
	$(call generate,.)

proto-check: $(PROTO_VENV)/.ready ## lint, format, breaking changes, and: are the committed stubs current?
	cd protos && ../$(PROTO_VENV)/bin/buf lint && ../$(PROTO_VENV)/bin/buf format --diff --exit-code
	cd protos && ../$(PROTO_VENV)/bin/buf breaking --against image.binpb
	rm -rf build/proto && mkdir -p build/proto
	$(call generate,build/proto)
	@for file in $$(cd build/proto && find . -type f); do cmp build/proto/$$file $$file || exit 1; done
	@echo "stubs are current"

proto-image: $(PROTO_VENV)/.ready ## accept the protos as they are as the new baseline for breaking changes
	cd protos && ../$(PROTO_VENV)/bin/buf build -o image.binpb

# Contracts of others, on the servers' side alone; each has a root of its own: ROOT:PATH.
FOREIGN_PROTOS := services:sluiceway_runtime/inference/open_inference.proto orchestrator:sluiceway_orchestrator/scaler/external_scaler.proto

define generate_foreign
	mkdir -p $(1)/$(2)
	$(PROTO_VENV)/bin/python -m grpc_tools.protoc -I $(2) --plugin=protoc-gen-mypy=$(PROTO_VENV)/bin/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(PROTO_VENV)/bin/protoc-gen-mypy_grpc \
		--python_out=$(1)/$(2) --mypy_out=quiet:$(1)/$(2) \
		--grpc_python_out=$(1)/$(2) --mypy_grpc_out=quiet:$(1)/$(2) $(2)/$(3)

endef

define generate
	$(GENERATE) --plugin=protoc-gen-mypy=$(PROTO_VENV)/bin/protoc-gen-mypy --python_out=$(1) --mypy_out=quiet:$(1) $(PROTO_FILES)
	$(GENERATE) --plugin=protoc-gen-mypy_grpc=$(PROTO_VENV)/bin/protoc-gen-mypy_grpc --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) $(PROTO_SERVICES)
	$(foreach proto,$(FOREIGN_PROTOS),$(call generate_foreign,$(1),$(word 1,$(subst :, ,$(proto))),$(word 2,$(subst :, ,$(proto)))))
	cd protos && ../$(PROTO_VENV)/bin/buf build -o $(abspath $(1))/sluiceway/descriptors.binpb
endef

$(PROTO_VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(PROTO_VENV)
	$(PROTO_VENV)/bin/python $(PIP) install --quiet --upgrade 'pip>=25.1'
	$(PROTO_VENV)/bin/python $(PIP) install --quiet --group proto
	touch $@

# --- clients in other languages ---------------------------------------------------------------------------------------
.PHONY: test-clients
test-clients: dev $(PROTO_VENV)/.ready $(TRITON_VENV)/.ready ## build the clients of every language and run them against a cluster (6 minutes)
	@for package in $$(cat clients/apt-packages.txt); do dpkg -s $$package >/dev/null 2>&1 \
		|| { echo "missing $$package: apt-get install --no-install-recommends \$$(cat clients/apt-packages.txt)" >&2; exit 1; }; done
	$(BIN)/sluiceway models pull --tests
	$(BIN)/python -m pytest -m clients tests/clients

# tritonclient wants protobuf below 7 and brings an `inference` package of its own: it cannot live beside Sluiceway. Its
# examples come from its repository, or from a clone of it (TRITON_CLIENT=path).
TRITON_CLIENT ?= https://github.com/triton-inference-server/client
$(TRITON_VENV)/.ready: Makefile tests/clients/perf-analyzer.sh tests/clients/triton-examples.sh
	$(PYTHON) -m venv $(TRITON_VENV)
	$(TRITON_VENV)/bin/python $(PIP) install --quiet 'tritonclient[grpc,http]==2.73.0'
	tests/clients/perf-analyzer.sh $(TRITON_VENV)/bin/python $(TRITON_VENV)/perf_analyzer
	tests/clients/triton-examples.sh $(TRITON_CLIENT) $(TRITON_VENV)/examples
	touch $@

# --- the page ---------------------------------------------------------------------------------------------------------
.PHONY: test-page screenshots
AXE_CORE := axe-core@4.14.1
PAGE_TOOLS := build/page/.ready

test-page: $(PAGE_TOOLS) ## drive the page of the HTTP port in Chromium (2 minutes)
	$(BIN)/python -m pytest -m slow tests/page

screenshots: $(PAGE_TOOLS) ## draw the pictures in README and docs anew, from a cluster and a Prometheus that run here (2 minutes)
	@command -v prometheus >/dev/null || { echo "missing prometheus: apt-get install --no-install-recommends prometheus" >&2; exit 1; }
	$(BIN)/sluiceway models pull --defaults
	PYTHONPATH=tests/support $(BIN)/python tests/page/screenshots.py

$(PAGE_TOOLS): Makefile pyproject.toml $(VENV)/.dev
	@for program in chromium chromedriver npm; do command -v $$program >/dev/null \
		|| { echo "missing $$program: apt-get install --no-install-recommends chromium chromium-driver npm" >&2; exit 1; }; done
	@$(BIN)/python $(PIP) install --quiet --group page
	@npm install --prefix build/page --no-save --no-package-lock --no-audit --no-fund --silent $(AXE_CORE)
	@touch $@

.PHONY: clean
clean: ## remove everything that was made here (not the weights cache)
	rm -rf $(VENV) .venv-peers $(PROTO_VENV) $(TORCH_VENV) $(TRITON_VENV) $(MUTATION_VENV) clients/build clients/*/gen clients/typescript/node_modules clients/typescript/dist build dist out
