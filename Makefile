# Two commands do everything on a fresh machine with Python 3.11, git and make:
#   make demo   the main job on two synthetic hospitals
#   make test   format, lint, types, import contract and tests

PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test benchmark clean

install: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: install
	$(BIN)/lungshift demo --output runs/demo --overwrite

test: install
	scripts/check

benchmark: install
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv runs
