"""A fixed sequence of tensor operations, written down at its first call and repeated without what composed it."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any, Callable, Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from pql.algorithms.activations import for_a_compiler


class Recorded:
    """`function`, whose operations at the first call are those of every later one: same shapes, same tensors.

    What vmap, autograd and modules make of a call is a flat list of operations on plain tensors (`make_fx`); repeated,
    it costs the operations alone. As for a CUDA graph, the function may look at no value, and the tensors that it reads
    or writes besides its arguments are those of the first call. Arguments and results are trees of tensors, results
    without a history.

    Args:
        compile: make one function of the operations; without a compiler they stay what they are, after one line.
    """

    def __init__(self, function: Callable[..., Any], compile: bool = False):
        self.function, self.compile = function, compile
        self.operations: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        if self.operations is None:
            return self._first(args)
        with torch.no_grad():
            return self.operations(*args)

    def _first(self, args: Sequence[Any]) -> Any:
        from torch.fx.experimental.proxy_tensor import make_fx  # a second, which only those pay who come here

        tensors, form = tree_flatten(args)
        found: list[Any] = []

        def noted(*tensors: Tensor) -> list[Tensor]:
            found.append(self.function(*tree_unflatten(list(tensors), form)))
            return tree_flatten(found[0])[0]

        with for_a_compiler() if self.compile else nullcontext():
            graph, held = lifted(make_fx(noted)(*tensors))
        inner: Callable[..., Any] = graph
        if self.compile:
            try:
                inner = compiled(graph, [*held, *tensors])
            except Exception as error:
                say_not_compiled(error)
        made = tree_flatten(found[0])[1]
        self.operations = lambda *args: tree_unflatten(inner(*held, *tree_flatten(args)[0]), made)
        return found[0]


def lifted(graph: torch.fx.GraphModule) -> tuple[torch.fx.GraphModule, list[Tensor]]:
    """`graph` with the tensors that it holds as its first arguments, and these, without a history.

    What changes between calls must come in by an argument: a constant of a graph may be folded into its code.
    """
    nodes, held = list(graph.graph.nodes), {}
    for node in nodes:
        if node.op == "get_attr":
            if node.target not in held:
                with graph.graph.inserting_before(nodes[0]):
                    held[node.target] = graph.graph.placeholder(f"held{len(held)}")
            node.replace_all_uses_with(held[node.target])
            graph.graph.erase_node(node)
    graph.recompile()
    return graph, [getattr(graph, name).detach() for name in held]


def compiled(graph: torch.fx.GraphModule, tensors: Sequence[Tensor]) -> Callable[..., Any]:
    """A graph of operations as one function of tensors like these, none of which asks for a gradient.

    What was compiled once, by whatever process, comes from inductor's cache on disk. It looks there only where somebody
    keeps books of shapes, as torch.compile does, which goes through Python's bytecode; shapes here are constant.
    """
    from torch import _guards, _inductor
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    books = FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True)
    with torch.no_grad(), _guards.tracing(_guards.TracingContext(books)):
        # one compiler, in this process: a pool of its own would outlive a role that is killed; and code for as many
        # threads as there are now, which not every torch tells apart where it looks for what is there
        options = {"compile_threads": 1, "cpp.threads": torch.get_num_threads()}
        return _inductor.compile(graph, list(tensors), options=options)


def say_not_compiled(error: BaseException, advice: str = "install a C++ compiler (g++)") -> None:
    """One line on stderr: why, and what to do."""
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).partition(". ")[0]
    print(f"note: not compiled ({reason}), so updates are slower: {advice}", file=sys.stderr, flush=True)
