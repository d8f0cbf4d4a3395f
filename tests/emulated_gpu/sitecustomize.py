"""Python imports this at its start from a folder on PYTHONPATH: `import torch` then finds two emulated GPUs.

EMULATED_GPU names the library built from device.cpp. It must be there before torch looks for a CUDA library.
"""

import ctypes
import importlib.abc
import importlib.util
import os
import sys


class Finder(importlib.abc.MetaPathFinder):
    """Finds torch and Warp as ever; importing them also sets up the emulation."""

    def find_spec(self, name, path=None, target=None):
        if name not in ("torch", "warp"):
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module):
            if name == "torch":
                ctypes.CDLL(os.environ["EMULATED_GPU"], ctypes.RTLD_GLOBAL)
            execute(module)
            import emulated_gpu

            getattr(emulated_gpu, f"set_up_{name}")(module)

        spec.loader.exec_module = exec_module
        return spec


if os.environ.get("EMULATED_GPU"):
    sys.meta_path.insert(0, Finder())
