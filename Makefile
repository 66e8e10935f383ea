# Everything here works on a fresh machine: the first command makes .venv and installs under constraints.txt.
# A CPU build of torch is enough. Where pip would bring a larger one, give the address of PyTorch's index of CPU
# wheels (pytorch.org, "Start locally"): make demo TORCH_INDEX=...

PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
export NETWRIGHT_DATA ?= $(wildcard ../shared/data)

.PHONY: demo test readme lint docs bench claims conformance coverage mutants clean

$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt torch $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(PIP) install -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) install -c constraints.txt -e '.[dev,docs]'
	touch $@

demo: $(VENV)/.base        ## improve a network on embedded data, then re-measure the files
	rm -rf demo
	$(BIN)/netwright improve --faster 2 --max-drop 1% --budget 90s --no-history --out demo
	$(BIN)/python benchmarks/remeasure.py demo

test: $(VENV)/.dev         ## all tests, on two cores: a third worker uses the time in which the others wait for a child
	$(BIN)/python -m pytest -n 3 --dist loadfile -m "not slow" --durations=10

readme: $(VENV)/.dev       ## every command and example of the README, with shorter budgets
	$(BIN)/python -m pytest tests/docs/test_readme.py --durations=3

coverage: $(VENV)/.dev     ## the tests with the share of core/ that they reach
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov=netwright.core --cov-report=term

conformance: $(VENV)/.dev  ## every method on every awkward network
	$(BIN)/python -m pytest tests/conformance --all-networks

mutants: $(VENV)/.dev      ## do a method's tests notice faults in it? SLUG="a b" or all; SEED=1 for other faults, JOBS=2
	$(BIN)/python -m tools.mutants $(SLUG) --seed $(or $(SEED),0) --jobs $(or $(JOBS),1)

lint: $(VENV)/.dev         ## style, format, floors of the house, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: $(VENV)/.dev         ## the site, with a page per method
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.dev        ## netwright beside its peers
	$(BIN)/python benchmarks/run.py

claims: $(VENV)/.dev       ## re-measure what the papers say (SLUGS="a b" for some)
	$(BIN)/python -m netwright.claims $(SLUGS)

clean:
	rm -rf demo site build $(VENV)
