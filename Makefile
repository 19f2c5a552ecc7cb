# Every target sets up what it needs by itself; none needs another first.
#   make run      compare the tutorial's initializers on handwritten digits -> reports/
#   make test     tests, lint, types, import floors
#   make bench    fill rates beside the installed frameworks (minutes; an idle machine)
#   make prove    longer proofs: fuzzed twins, statistics over 2^32 draws, a 12 GiB tensor, 10^5 files
#   make sanitize fuzzed twins with the address and undefined-behaviour sanitizers

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One stamp per set of packages: made when the set is first needed or pyproject.toml changes.
RUN := $(VENV)/.run
TEST := $(VENV)/.test
PEERS := $(VENV)/.peers
# Each framework has a process of its own: they disturb one another in one.
ADAPTERS := torch tensorflow jax keras-tensorflow keras-torch keras-jax
SOURCES := pyproject.toml setup.py $(wildcard src/fanin/_kernel/*.c src/fanin/_kernel/*.h)

.PHONY: run test check bench prove sanitize clean test-core $(ADAPTERS:%=test-%) test-browser test-wheel

run: $(RUN)
	$(BIN)/fanin compare

test: $(TEST) check
	$(MAKE) --jobs 2 --output-sync=target test-core $(ADAPTERS:%=test-%) test-browser test-wheel

test-core: $(TEST)
	$(BIN)/python -m pytest

test-torch test-tensorflow test-jax: test-%: $(TEST)
	$(BIN)/python -m pytest --adapter $*

test-keras-tensorflow test-keras-torch test-keras-jax: test-keras-%: $(TEST)
	KERAS_BACKEND=$* $(BIN)/python -m pytest --adapter keras

# Needs Chromium in the path, or where FANIN_BROWSER says.
test-browser: $(TEST)
	$(BIN)/python -m pytest tests/browser

test-wheel: $(TEST)
	$(BIN)/python tests/check_wheel.py

check: $(TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(PEERS)
	$(BIN)/fanin bench

prove: $(TEST)
	$(BIN)/python tests/prove.py

sanitize: $(TEST)
	CFLAGS="-g -fsanitize=address,undefined -fno-sanitize-recover=undefined" FANIN_BUILD_KERNEL=yes \
		$(BIN)/python -m pip install --quiet --no-deps --upgrade --target build/sanitized .
	ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc PYTHONPATH=build/sanitized \
		LD_PRELOAD="$$(cc -print-file-name=libasan.so) $$(cc -print-file-name=libubsan.so)" \
		$(BIN)/python tests/prove.py twins --seconds 60

clean:
	rm -rf $(VENV) build reports

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(RUN): $(BIN)/pip $(SOURCES)
	$(BIN)/python -m pip install --quiet --editable '.[lab]'
	touch $@

$(TEST): $(RUN)
	$(BIN)/python -m pip install --quiet --group test --group check
	touch $@

$(PEERS): $(RUN)
	$(BIN)/python -m pip install --quiet --group peers
	touch $@
