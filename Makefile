# factorcube. `make help` lists what can be made; `make demo` and `make test` set everything up by themselves.
PYTHON ?= python3
# Where torch comes from: leave empty for pip's own index and find-links, or give an index with the build you want:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
TORCH_VERSION := 2.13.0
UV_VERSION := 0.13.8
export UV_FIND_LINKS ?= $(or $(PIP_FIND_LINKS),$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))
BIN := .venv/bin
READY := .venv/.ready

export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
export GX_ANALYTICS_ENABLED := false

.DEFAULT_GOAL := help
.PHONY: help setup demo example-french serve test bench docs check check-slow lint types layers format lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(READY) ## Create .venv with the locked dependencies

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "factorcube needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --compile-bytecode torch==$(TORCH_VERSION) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: $(READY) ## Run the main job on 20 stocks, 1990-2022, that ship inside a package
	$(BIN)/factorcube run --promote-first examples/demo.yaml

example-french: $(READY) ## Run it on the monthly French portfolios that ship inside a package
	$(BIN)/factorcube run --promote-first examples/french.yaml

serve: $(READY) ## Start a Prefect server, the deployments and a worker on this machine (PORT=4200)
	FACTORCUBE_CONFIGS=$${FACTORCUBE_CONFIGS:-examples} $(BIN)/factorcube serve --promote-first --port $(or $(PORT),4200)

test: $(READY) ## Run the tests
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not slow"

bench: $(READY) ## Time the linear family against its peers (ARGS="ipca --quick" for one, small; ARGS=scale for whole runs)
	$(BIN)/python -m benchmarks $(ARGS)

docs: $(READY) ## Build the documentation into data/site, its notebooks executed; any warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

check: lint types layers ## Lint, check types and the direction of imports

check-slow: $(READY) ## Run the tests that take minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

lint: $(READY) ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## Check types
	$(BIN)/mypy

layers: $(READY) ## Check that imports run one way
	$(BIN)/lint-imports

format: $(READY) ## Mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(READY) ## Resolve the dependencies anew (keeps pins of pyproject.toml)
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra docs --generate-hashes --python-version 3.11 \
		--no-emit-package torch --no-header --no-annotate --quiet --output-file requirements.lock

clean: ## Remove the environment, caches and everything that runs have written
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis data *.egg-info
