# Everything runs in .venv, made by the first target that needs it with whatever python3 >= 3.11 is there.
# Windows without make:
#   py -3 -m venv .venv && .venv\Scripts\python -m pip install --require-hashes -r requirements-dev.lock
#   .venv\Scripts\python -m pip install --no-deps --no-build-isolation -e . && .venv\Scripts\python examples\demo.py

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MUTATION := .venv-mutation
ENGINES := .venv-engines
LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links
CODE := src tests benchmarks examples
FIGURES := build/bench

.PHONY: demo test check storm bench bench-engines mutation lock clean

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(READY)
	$(BIN)/python -m pytest -m "not storm"

check: $(READY)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory test

storm: $(READY)
	$(BIN)/python -m pytest -m storm

# The figures, and plots of them, are left in $(FIGURES).
bench: $(READY)
	mkdir -p $(FIGURES)
	$(BIN)/python benchmarks/utilization.py --json $(FIGURES)/known.json
	$(BIN)/python benchmarks/utilization.py --references 2 --json $(FIGURES)/references.json
	$(BIN)/python benchmarks/utilization.py --unknown --json $(FIGURES)/unknown.json
	$(BIN)/python benchmarks/utilization.py --lost-answers --json $(FIGURES)/lost-answers.json
	$(BIN)/python benchmarks/utilization.py --moving --json $(FIGURES)/moving.json
	$(BIN)/python benchmarks/utilization.py --pool --json $(FIGURES)/pool.json
	$(BIN)/python benchmarks/overhead.py --json $(FIGURES)/overhead.json
	$(BIN)/python benchmarks/scale.py --json $(FIGURES)/scale.json
	PYTHONPATH=. $(BIN)/python benchmarks/million.py --on SQLite --json $(FIGURES)/million.json
	$(BIN)/python benchmarks/limiter.py --json $(FIGURES)/limiter.json
	$(BIN)/python benchmarks/plot.py $(FIGURES) $(FIGURES)

# Beside other engines, which are installed for this alone. Needs PostgreSQL's binaries.
bench-engines: $(ENGINES)/.ready
	mkdir -p $(FIGURES)
	PYTHONPATH=src:. $(ENGINES)/bin/python benchmarks/engine.py --json $(FIGURES)/engine.json

# From scratch each time: what mutmut keeps of an earlier run doesn't notice every change of a test. Not on Windows.
mutation: $(MUTATION)/.ready
	rm -rf mutants
	$(MUTATION)/bin/mutmut run
	$(MUTATION)/bin/python benchmarks/mutation.py

# Needs uv; run it after a change of dependencies in pyproject.toml.
lock:
	$(LOCK) --extra dev --output-file requirements-dev.lock
	$(LOCK) --extra mutation --constraint requirements-dev.lock --output-file requirements-mutation.lock
	$(LOCK) --extra bench-engines --constraint requirements-dev.lock --output-file requirements-engines.lock

$(READY): pyproject.toml requirements-dev.lock
	@for python in "$(PYTHON)" python3 python3.14 python3.13 python3.12 python3.11; do \
		if [ -n "$$python" ] && $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			exec $$python -m venv --clear $(VENV); \
		fi; \
	done; echo "Python 3.11 or newer is needed: install it, or name it with make PYTHON=..." >&2; exit 1
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

$(MUTATION)/.ready: requirements-mutation.lock | $(READY)
	$(BIN)/python -m venv --clear $(MUTATION)
	$(MUTATION)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-mutation.lock
	@touch $@

$(ENGINES)/.ready: requirements-engines.lock | $(READY)
	$(BIN)/python -m venv --clear $(ENGINES)
	$(ENGINES)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-engines.lock
	@touch $@

clean:
	rm -rf $(VENV) $(MUTATION) $(ENGINES) mutants .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build
