"""torch.cuda on the devices of device.cpp: streams, events, graphs, memory shared with other processes.

Kernels are done when they are asked for, so streams and events only keep their order. A graph is the operations that
were recorded, done again on the same memory; what they did while they were recorded is undone, as a GPU does not do it.
"""

from __future__ import annotations

import contextlib
import os
import time
from multiprocessing.reduction import ForkingPickler
from types import SimpleNamespace

import torch
import torch.multiprocessing
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICES = 2
MEMORY = 16 << 30
DEFAULT_GENERATORS = []  # named here, but what draws from none of its own draws from the library's


def index_of(device=None):
    if device is None:
        return ops().exchange_device(-1)
    if isinstance(device, int):
        return device
    index = torch.device(device).index
    return ops().exchange_device(-1) if index is None else index


def ops():
    return torch.ops.emulated_gpu


class Stream:
    """An order of work; of its own number on its device."""

    number = 0
    current: dict[int, Stream] = {}  # noqa: RUF012 - one for the process

    def __init__(self, device=None, priority=0, number=None):
        self.device = torch.device("cuda", index_of(device))
        if number is None:
            Stream.number += 1
            number = Stream.number
        self.cuda_stream = self.stream_id = number

    def __eq__(self, other):
        return (self.device, self.cuda_stream) == (other.device, other.cuda_stream)

    def __hash__(self):
        return hash((self.device, self.cuda_stream))

    def wait_stream(self, other):
        pass

    wait_event = wait_stream

    def synchronize(self):
        not_while_capturing("cudaStreamSynchronize")

    def query(self):
        return True


class Event:
    def __init__(self, enable_timing=False, blocking=False, interprocess=False, external=False):
        self.at = None

    def record(self, stream=None):
        self.at = time.perf_counter()

    def wait(self, stream=None):
        pass

    def synchronize(self):
        not_while_capturing("cudaEventSynchronize")

    def query(self):
        return True

    def elapsed_time(self, other):
        return (other.at - self.at) * 1e3


def not_while_capturing(what):
    if CUDAGraph.recording is not None:
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({what})")


def current_stream(device=None):
    index = index_of(device)
    return Stream.current.setdefault(index, Stream(index, number=0))


def set_stream(stream):
    Stream.current[stream.device.index] = stream
    ops().exchange_stream(stream.device.index, stream.cuda_stream)


@contextlib.contextmanager
def on_device(device):
    before = ops().exchange_device(index_of(device))
    try:
        yield
    finally:
        ops().exchange_device(before)


@contextlib.contextmanager
def on_stream(stream):
    if stream is None:
        yield
        return
    before = current_stream(stream.device)
    with on_device(stream.device):
        set_stream(stream)
        try:
            yield
        finally:
            set_stream(before)


class CUDAGraph:
    """Operations, and the memory that they used."""

    recording: CUDAGraph | None = None

    def __init__(self, keep_graph=False):
        self.calls, self.generators = [], []

    def register_generator_state(self, generator):
        ops().set_registered(generator, True)
        self.generators.append(generator)

    def replay(self):
        not_while_capturing("cudaGraphLaunch")
        assert self.calls, "a graph without work, or one that was not recorded"
        with torch.no_grad():
            for function, args, kwargs, results in self.calls:
                new = tree_leaves(function(*args, **kwargs))
                for mine, its in zip(results, new):
                    if mine is not None:
                        mine.copy_(its)


class Recording(TorchDispatchMode):
    """Notes each operation on a device and undoes them all at the end."""

    def __init__(self, graph):
        super().__init__()
        self.graph = graph
        self.own, self.before, self.kept = set(), {}, []
        self.states = [(one, one.get_state()) for one in graph.generators]

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        writes, views = set(), False
        for position, argument in enumerate(function._schema.arguments):
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            if argument.alias_info is not None:
                if argument.alias_info.is_write:
                    for tensor in tensors(value):
                        self.keep(tensor)
                        writes.add(id(tensor))
                else:
                    views = True
        on_device = any(tensor.is_cuda for tensor in tensors((args, kwargs)))
        args, kwargs = tree_map_only(Tensor, number, (args, kwargs))
        result = function(*args, **kwargs)
        on_device = on_device or any(tensor.is_cuda for tensor in tensors(result))
        results = []
        for tensor in tree_leaves(result):
            new = isinstance(tensor, Tensor) and not views and id(tensor) not in writes
            results.append(tensor if new else None)
            if new and tensor.is_cuda:
                self.own.add(tensor.untyped_storage().data_ptr())
        self.kept.append((args, kwargs, result))
        if on_device and not views:
            self.graph.calls.append((function, args, kwargs, results))
        return result

    def keep(self, tensor):
        """Remember what was in memory that was there before."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.own | self.before.keys():
            whole = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage, 0, (storage.nbytes(),), (1,))
            self.before[storage.data_ptr()] = whole, whole.clone()

    def undo(self):
        for whole, before in self.before.values():
            whole.copy_(before)
        for generator, state in self.states:
            generator.set_state(state)
            ops().set_registered(generator, False)
        self.graph.kept = self.kept  # as a graph's pool of memory would


def tensors(value):
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def number(tensor):
    """A number on the host is what it was when it was recorded."""
    return tensor if tensor.is_cuda else tensor.clone()


@contextlib.contextmanager
def graph(cuda_graph, pool=None, stream=None, capture_error_mode="global"):
    not_while_capturing("cudaStreamBeginCapture")
    if capture_error_mode not in ("global", "thread_local", "relaxed"):
        raise ValueError(capture_error_mode)
    recording = Recording(cuda_graph)
    with on_stream(stream or Stream()):
        CUDAGraph.recording = cuda_graph
        ops().set_capturing(True)
        try:
            with recording:
                yield
        except BaseException:
            cuda_graph.calls = []
            for generator in (DEFAULT_GENERATORS[index_of()], *cuda_graph.generators):
                ops().set_lost(generator)
            raise
        finally:
            ops().set_capturing(False)
            CUDAGraph.recording = None
            recording.undo()


def properties(device=None):
    return SimpleNamespace(
        name="NVIDIA Emulated", major=9, minor=0, total_memory=MEMORY, multi_processor_count=1, L2_cache_size=1 << 20
    )


def cudart():
    return SimpleNamespace(
        cudaHostRegister=lambda at, size, flags: ops().host_register(at, size),
        cudaHostUnregister=lambda at: ops().host_unregister(at),
    )


def set_sync_debug_mode(mode):
    ops().set_sync_debug_mode({"default": 0, "warn": 1, "error": 2}.get(mode, mode))


def reduce(tensor):
    """How a tensor goes to another process: CUDA IPC for a device's, torch's own way for another."""
    if not tensor.is_cuda:
        return torch.multiprocessing.reductions.reduce_tensor(tensor)
    if os.environ.get("EMULATED_GPU_WITHOUT_IPC"):
        raise RuntimeError("CUDA error: operation not supported\nCompile with `TORCH_USE_CUDA_DSA`")
    details = tensor.dtype, tensor.size(), tensor.stride(), tensor.storage_offset()
    return rebuild, (ops().handle(tensor), *details)


def rebuild(handle, dtype, size, stride, offset):
    storage = ops().attach(handle).untyped_storage()
    return torch.empty(0, dtype=dtype, device=torch.device("cuda", handle[4])).set_(storage, offset, size, stride)


def set_up_torch(torch):
    DEFAULT_GENERATORS.extend(torch.Generator(f"cuda:{index}") for index in range(DEVICES))
    changes = {
        "is_available": lambda: True,
        "device_count": lambda: DEVICES,
        "current_device": index_of,
        "set_device": lambda device: ops().exchange_device(index_of(device)),
        "device": on_device,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "synchronize": lambda device=None: not_while_capturing("cudaDeviceSynchronize"),
        "empty_cache": lambda: None,
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "is_bf16_supported": lambda *_: True,
        "get_device_properties": properties,
        "get_device_name": lambda device=None: properties(device).name,
        "get_device_capability": lambda device=None: (9, 0),
        "mem_get_info": lambda device=None: (MEMORY, MEMORY),
        "max_memory_allocated": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
        "is_current_stream_capturing": lambda: CUDAGraph.recording is not None,
        "_sleep": lambda cycles: None,
        "set_sync_debug_mode": set_sync_debug_mode,
        "get_sync_debug_mode": lambda: ops().get_sync_debug_mode(),
        "cudart": cudart,
        "default_generators": DEFAULT_GENERATORS,
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": CUDAGraph,
        "current_stream": current_stream,
        "set_stream": set_stream,
        "stream": on_stream,
        "graph": graph,
    }
    for name, value in changes.items():
        setattr(torch.cuda, name, value)
    torch.version.cuda = "0.0"
    ForkingPickler.register(Tensor, reduce)


def set_up_warp(wp):
    """Warp's kernels run on its CPU, on the same memory."""
    device_from_torch, to_torch = wp.device_from_torch, wp.to_torch
    wp.device_from_torch = lambda device: device_from_torch("cpu" if torch.device(device).type == "cuda" else device)
    wp.stream_from_torch = lambda stream: None

    def to_torch_as_cuda(array):
        with _disable_current_modes():  # no operation of a device, so in no recording
            return ops().as_cuda(to_torch(array))

    wp.to_torch = to_torch_as_cuda
