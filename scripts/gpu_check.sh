#!/bin/sh
# The GPU check, with what it needs: from the registry into .venv or, with WHEELS=<folder>, from that folder into
# .gpu-packages, beside whatever the machine's Python has, its torch above all. `make wheels` fills such a folder.
# `make gpu-check` is this; without make: WHEELS=<folder> scripts/gpu_check.sh [key=value ...]
set -eu
cd "$(dirname "$0")/.."
if [ -n "${WHEELS:-}" ]; then
	python=${PYTHON:-python3}
	if [ ! -e .gpu-packages/.installed ] || [ "$WHEELS" -nt .gpu-packages/.installed ]; then
		"$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --upgrade \
			--target .gpu-packages "$WHEELS"/*.whl
		touch .gpu-packages/.installed
	fi
	PYTHONPATH=$PWD:$PWD/.gpu-packages${PYTHONPATH:+:$PYTHONPATH}
	export PYTHONPATH
else
	make --no-print-directory install
	python=.venv/bin/python
	"$python" -m pip install --quiet --disable-pip-version-check -c docker/constraints.txt -e ".[gpu]"
fi
exec "$python" -m pql.bench.gpu_check "$@"
