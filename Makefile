# Everything that is typed often. `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
# digits (and letters): the embedded sets, on a CPU. coco (and voc2007): the paper's own protocol, on GPUs.
DATA ?= digits
SEEDS ?= 0
# Where tables, claims, figures and the report go; results/ is what the repository publishes: RESULTS=results renews it.
RESULTS ?= reproduced
JOBS ?= $(if $(filter coco coco2017,$(DATA)),1,2)
# Further overrides of every run, such as ARGS="schedule.accumulate=4 schedule.precision=bf16 runtime.workers=8"
ARGS ?=
# The photographs of `make gpu`, such as PHOTOS="data=coco_custom data.root=... ..."
PHOTOS ?= data=bccd
# Images a split of the embedded sets at most, for a quick look
LIMIT ?=
# Where torch comes from; a machine without a GPU saves gigabytes with
#   make reproduce TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SMOKE := build/smoke
# A data set laid out by hand is as good as a fetched one.
HAVE = $(BIN)/drrepro data fetch $(1) || $(BIN)/drrepro data check $(1) --quick || exit;
ifeq ($(filter digits coco coco2017,$(DATA)),)
$(error DATA=$(DATA): digits or coco)
endif
SETS := $(if $(filter coco coco2017,$(DATA)),coco2017 voc2007,digits letters)

.DEFAULT_GOAL := help
.PHONY: help reproduce smoke tune test test-full gpu lint format docs bench clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12
	@echo "variables of reproduce: DATA=$(DATA) (coco: the paper's own protocol, on GPUs) ARGS=$(ARGS) (further overrides)"
	@echo "of reproduce and tune: SEEDS=$(SEEDS) (0,1,2 for three) JOBS=$(JOBS) (runs at a time) RESULTS=$(RESULTS) (where to)"
	@echo "of the installation: PYTHON=$(PYTHON) VENV=$(VENV) TORCH_INDEX=$(TORCH_INDEX)"

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(PIP) --index-url $(TORCH_INDEX) --no-deps torch torchvision)
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	@touch $@

reproduce: $(VENV)/.installed ## Tables 1-3, claims, figures and report.html: about 14 minutes of two cores on the embedded data; DATA=coco on GPUs
	@start=$$(date +%s); failed=0; \
	$(if $(filter coco2017,$(SETS)),$(foreach set,$(SETS),$(call HAVE,$(set))),$(BIN)/drrepro data make $(if $(LIMIT),--limit $(LIMIT)) || exit;) \
	$(BIN)/drrepro sweep all data=$(firstword $(SETS)) seed=$(SEEDS) $(ARGS) --jobs $(JOBS) --no-tables || failed=$$?; \
	for part in tables claims figures html; do $(BIN)/drrepro report $$part --results $(RESULTS) || failed=$$?; done; \
	echo "make reproduce: $$(( $$(date +%s) - start )) s, DATA=$(DATA) SEEDS=$(SEEDS) JOBS=$(JOBS), $$(date -u +%F)" \
		| tee $(RESULTS)/reproduced.txt; \
	$(if $(filter results,$(RESULTS)),,$(BIN)/drrepro report compare --results $(RESULTS) --against results || failed=$$?;) \
	exit $$failed

smoke: $(VENV)/.installed ## the same path on eight images a split: under a minute, numbers without meaning
	@rm -rf $(SMOKE)
	@DRREPRO_DATA=$(SMOKE)/data DRREPRO_RUNS=$(SMOKE)/runs $(MAKE) --no-print-directory reproduce DATA=digits SEEDS=0 LIMIT=8 \
		RESULTS=$(SMOKE)/results ARGS="schedule.steps=4 schedule.warmup_steps=1 schedule.images_per_step=2"

tune: $(VENV)/.installed ## the learning rates of conf/schedule/cpu.yaml: one grid for all losses, judged on the tune split
	$(BIN)/drrepro data make digits
	$(BIN)/drrepro sweep grid loss=focal,dr,balanced_ce,ghm_c,quality_focal,varifocal,ap,rank_sort \
		schedule.lr=0.0005,0.001,0.002,0.004 evaluation.split=tune --name tuning --jobs $(JOBS)
	$(BIN)/drrepro report tables --results $(RESULTS)

test: lint ## lint, types and tests; the published results made again from their records
	$(BIN)/drrepro report verify --results results
	$(BIN)/pytest -n 2

test-full: lint ## also the long tests: kills at random moments, two sweeps at once, Slurm and Ray
	$(BIN)/pytest -n 2 -m ""

gpu: $(VENV)/.dev ## on a machine with CUDA, meant for ten minutes: its tests, losses, steps and memory, into results/gpu
	@$(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' \
		|| { echo "make gpu: torch finds no CUDA device here; drrepro doctor says what is" >&2; exit 2; }
	@rm -rf build/gpu; mkdir -p build/gpu results/gpu; failed=0; \
	$(BIN)/pytest -m gpu tests/gpu || failed=$$?; \
	$(BIN)/drrepro bench losses --device cuda --results results/gpu || failed=$$?; \
	$(BIN)/drrepro bench step runtime.device=cuda experiment=table1 weights=none loss=focal,dr schedule.precision=fp32,bf16 \
		input.scale=400,800 runtime.compile=false,true schedule.images_per_step=2 --repeats 20 --results results/gpu \
		|| failed=$$?; \
	$(if $(filter data=bccd,$(PHOTOS)),$(BIN)/drrepro data fetch bccd || failed=$$?;) \
	DRREPRO_RUNS=build/gpu/runs $(BIN)/drrepro train --json --quiet $(PHOTOS) model=resnet50 weights=none input=paper \
		schedule=coco_1x loss=dr schedule.steps=200 schedule.images_per_step=2 runtime.device=cuda runtime.workers=4 \
		> build/gpu/photographs.json && mv build/gpu/photographs.json results/gpu/ || failed=$$?; \
	echo "2 images of 800 px a step, as each of 8 V100 has them, to compare with detectron2's 0.205 s and 4.1 GB:"; \
	sed -n '1p; /^resnet50,800,2,.*,False,/p' results/gpu/bench/step.csv; \
	echo "200 steps on photographs and detection in fp32, to compare with mmdetection's 3.8 GB and, in fp16, 31.6 images/s:"; \
	grep -oE '"(device|steps_per_second|gpu_memory_mb|detect_seconds|test_images)": [^,}]*' results/gpu/photographs.json; \
	exit $$failed

lint: $(VENV)/.dev ## lint and types alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev ## the pages of docs/ as a site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet -f docs/mkdocs.yml

bench: $(VENV)/.installed ## two of the benchmarks: needs the runs of `make reproduce`
	$(BIN)/drrepro bench evaluation
	$(BIN)/drrepro bench bootstrap

clean: ## remove what smoke and the builds leave; data/, runs/ and .venv/ stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
