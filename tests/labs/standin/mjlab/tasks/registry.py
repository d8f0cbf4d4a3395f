"""mjlab.tasks.registry, as far as an adapter needs it."""

from copy import deepcopy
from types import SimpleNamespace

_REGISTRY = {}


def register_mjlab_task(task_id, env_cfg, obs_groups=None):
    _REGISTRY[task_id] = env_cfg, obs_groups or {"actor": ("actor",), "critic": ("critic",)}


def list_tasks():
    return sorted(_REGISTRY)


def load_env_cfg(task_name, play=False):
    return deepcopy(_REGISTRY[task_name][0])


def load_rl_cfg(task_name):
    return SimpleNamespace(obs_groups=_REGISTRY[task_name][1])
