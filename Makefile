# Set-up is idempotent: .venv/.installed is newer than what it was made from, or it is made again.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PYTHON38 ?= $(shell for p in python3.8 $$HOME/.pyenv/versions/3.8.*/bin/python; do \
	"$$p" -c 'import sys, venv; sys.exit(sys.version_info[:2] != (3, 8))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
BIN38 := .venv38/bin
ARGS ?=
# Several processes of tests (tests/conftest.py says how many); whichever is done first takes over from the others.
# ARGS="-n 0": one process, as by pytest alone.
PYTEST := -m pytest -n auto --dist=worksteal

.PHONY: install train test test-parity test-mjlab test-isaaclab test-slurm test-py38 test-isaacgym test-isaacgym-py38 \
	test-docker-pins gpu-check wheels lint clean

install: .venv/.installed

.venv/.installed: setup.py docker/constraints.txt
	@test -n "$(PYTHON)" || { echo "make: needs Python 3.11 or newer; install it or set PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing what docker/constraints.txt pins into .venv: a minute or two, longer where torch is to be downloaded"
	$(BIN)/pip install --quiet --disable-pip-version-check -c docker/constraints.txt -e ".[dev]"
	@touch $@

train: install
	$(BIN)/python scripts/train.py $(ARGS)

test: install
	$(BIN)/python $(PYTEST) $(ARGS)

# Every task of Gymnasium's and dm_control's against its original over whole episodes: about 15 minutes.
test-parity: install
	PARITY_STEPS=1010 $(BIN)/python $(PYTEST) tests/tasks/suite/gym tests/tasks/suite/dmc $(ARGS)

test-slurm: install
	tests/slurm/install.sh
	$(BIN)/python -m pytest tests/slurm $(ARGS)

# mjlab itself, in the interpreter that has it: MJLAB_PYTHON=<its virtual environment>/bin/python make test-mjlab
# Isaac Lab likewise, by ISAACLAB_PYTHON. Each takes minutes the first time, as kernels are compiled.
test-mjlab test-isaaclab: test-%: install
	$(BIN)/python -m pytest -rs tests/tasks/simulators/test_$*_itself.py $(ARGS)

# The environment of docker/Dockerfile.isaacgym; what needs MuJoCo skips itself. The first time takes about 5 GB.
test-py38: .venv38/.installed
	$(BIN38)/python $(PYTEST) $(ARGS)

.venv38/.installed: setup.py docker/constraints-py38.txt
	@test -n "$(PYTHON38)" || { echo "make: needs CPython 3.8 (pyenv install 3.8, say); or set PYTHON38=/path/to/python3.8"; exit 2; }
	@test -x $(BIN38)/python || $(PYTHON38) -m venv .venv38
	$(BIN38)/pip install --quiet --disable-pip-version-check -c docker/constraints-py38.txt --upgrade pip setuptools wheel
	$(BIN38)/pip install --quiet --disable-pip-version-check -c docker/constraints-py38.txt -e . pytest pytest-timeout pytest-xdist
	@touch $@

# Every task of a checkout of IsaacGymEnvs on the stand-in simulator: ISAACGYMENVS_PATH=<checkout> make test-isaacgym
test-isaacgym: install .venv/isaacgym/.installed
	$(call test_isaacgymenvs,$(BIN))

test-isaacgym-py38: .venv38/.installed .venv38/isaacgym/.installed
	$(call test_isaacgymenvs,$(BIN38))

%/isaacgym/.installed: tests/isaacgym_standin/requirements.txt %/.installed
	$*/bin/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $*/isaacgym -r $<
	@touch $@

define test_isaacgymenvs
@test -d "$(ISAACGYMENVS_PATH)/isaacgymenvs/cfg/task" || { echo "make: needs ISAACGYMENVS_PATH=<checkout of \
github.com/isaac-sim/IsaacGymEnvs>, this is '$(ISAACGYMENVS_PATH)'"; exit 2; }
ISAACGYMENVS_PATH="$(abspath $(ISAACGYMENVS_PATH))" $(1)/python $(PYTEST) tests/pql/roles/test_isaacgymenvs.py $(ARGS)
endef

# Every pin has a wheel for its image, and each image's pip steps run in order; gigabytes, so not part of make test.
test-docker-pins: install
	$(BIN)/python tests/docker/pins.py $(ARGS)

# On a box with an NVIDIA GPU: its tests and measurements. WHEELS=<folder>: install from there, with the box's torch.
gpu-check:
	WHEELS="$(WHEELS)" scripts/gpu_check.sh $(ARGS)

# The folder for it, where a registry is. ARGS="without=[torch,numpy]": the box has those.
wheels: install
	$(BIN)/python scripts/wheels.py $(ARGS)

lint: install
	$(BIN)/ruff check .

clean:
	rm -rf .venv .venv38 .gpu-packages wheels build *.egg-info .pytest_cache .ruff_cache
