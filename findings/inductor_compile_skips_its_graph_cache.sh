#!/usr/bin/env bash
# torch 2.13.0 (CPU build, g++ as its compiler).
#
# make_fx writes down a function with its derivatives as one graph; torch._inductor.compile(graph, inputs) makes code of
# it. torch.compile keeps such results on disk, and so one would expect the second process to find the first one's
# (torch._inductor.config.fx_graph_cache is True). It never does: the cache is asked only under a tracing context whose
# fake mode has a ShapeEnv, which Dynamo makes and a caller of make_fx does not have; without one it is passed over, and
# nothing is said but at log level info ("Bypassing FX Graph Cache because 'No shape env'"). Each process then lowers the
# graph anew, although all C++ is found compiled. Under such a context of one's own the second process hits.
#
# Output seen (seconds of CPU in torch._inductor.compile, for a small network's forward and backward pass):
#   as it comes: process 1: hits 0, process 2: hits 0 (1.4 s)
#   under a tracing context: process 1: hits 0, process 2: hits 2 (0.2 s)
# Fails unless the second process misses as it comes and hits under the context.
set -euo pipefail
command -v g++ > /dev/null || { echo "skipped: no g++"; exit 0; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
cat > "$folder/one.py" <<'PY'
import contextlib
import sys
import time

import torch
import torch._inductor.compile_fx
from torch._dynamo.utils import counters
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv


def slope(x, *weights):
    leaves = [w.detach().requires_grad_() for w in weights]
    for w in leaves:
        x = torch.nn.functional.layer_norm(x @ w, (32,)).tanh()
    return torch.autograd.grad(x.square().sum(), leaves)


inputs = [torch.ones(8, 32)] + [torch.eye(32) for _ in range(4)]
graph = make_fx(slope)(*inputs)
books = TracingContext(FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True))
with torch.no_grad(), tracing(books) if sys.argv[1] == "context" else contextlib.nullcontext():
    begin = time.process_time()
    torch._inductor.compile(graph, inputs)(*inputs)
    seconds = time.process_time() - begin
print(counters["inductor"]["fxgraph_cache_hit"] + counters["aot_autograd"]["autograd_cache_hit"], round(seconds, 1))
PY
run() { TORCHINDUCTOR_CACHE_DIR="$folder/$1" "$folder/venv/bin/python" "$folder/one.py" "$1"; }
read -r bare_first _ < <(run bare)
read -r bare_second bare_seconds < <(run bare)
read -r first _ < <(run context)
read -r second seconds < <(run context)
echo "as it comes: process 1: hits $bare_first, process 2: hits $bare_second ($bare_seconds s)"
echo "under a tracing context: process 1: hits $first, process 2: hits $second ($seconds s)"
[ "$bare_first" = 0 ] && [ "$bare_second" = 0 ] && [ "$first" = 0 ] && [ "$second" -ge 1 ]
