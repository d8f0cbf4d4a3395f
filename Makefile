# Set-up is idempotent: .venv/.installed is newer than what it was made from, or it is made again.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
ARGS ?=

.PHONY: install train test test-slurm lint clean

install: .venv/.installed

.venv/.installed: setup.py docker/constraints.txt
	@test -n "$(PYTHON)" || { echo "make: needs Python 3.11 or newer; install it or set PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c docker/constraints.txt -e ".[dev]"
	@touch $@

train: install
	$(BIN)/python scripts/train.py $(ARGS)

test: install
	$(BIN)/python -m pytest $(ARGS)

test-slurm: install
	tests/slurm/install.sh
	$(BIN)/python -m pytest tests/slurm $(ARGS)

lint: install
	$(BIN)/ruff check .

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache
