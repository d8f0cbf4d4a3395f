"""Packages that IsaacGymEnvs imports for tasks that the tests don't run: empty ones where they aren't installed."""

import importlib.abc
import importlib.machinery
import sys
import types

import numpy

NAMES = ("gym", "jinja2", "matplotlib", "pysdf", "rl_games", "scipy", "tkinter", "trimesh", "urdfpy", "warp")


class Anything:
    """Stands for any class or function of such a package; it can be a base class, a decorator, an annotation."""

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        return args[0] if len(args) == 1 and callable(args[0]) else self

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

    def __getitem__(self, item):
        return self

    __iter__ = None  # it has no end


class Empty(types.ModuleType):
    """A module that has every public name."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Anything,), {}) if name[:1].isupper() else Anything()


class Box:
    """`gym.spaces.Box`, as far as its shape."""

    def __init__(self, low, high, *args, **kwargs):
        self.shape = numpy.shape(low)


class Cloud:
    """`pysdf.SDF`: for points (n, 3) their distance to the nearest vertex, negative as the original's is outside."""

    def __init__(self, vertices, faces):
        from scipy.spatial import cKDTree

        self.tree = cKDTree(vertices)

    def __call__(self, points):
        return -self.tree.query(points)[0]


# What tasks compute with.
NEEDED = {"gym": {"spaces": types.SimpleNamespace(Dict=dict, Box=Box)}, "pysdf": {"SDF": Cloud}}


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Asked last, when no other finder knows the module."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in NAMES:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        return Empty(spec.name)

    def exec_module(self, module):
        module.__path__ = []
        for name, value in NEEDED.get(module.__name__, {}).items():
            setattr(module, name, value)


def install():
    """Also give numpy the names that it lost in 1.24 and 2.0, which IsaacGymEnvs still uses."""
    sys.meta_path.append(Finder())
    for name, value in {"Inf": numpy.inf, "float": float, "int": int, "bool": bool}.items():
        if name not in vars(numpy):
            setattr(numpy, name, value)
