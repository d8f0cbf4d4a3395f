"""mjlab.tasks.registry, as far as an adapter needs it."""

from copy import deepcopy

_REGISTRY = {}


def register_mjlab_task(task_id, env_cfg, play_env_cfg, rl_cfg, runner_cls=None):
    _REGISTRY[task_id] = env_cfg, rl_cfg


def list_tasks():
    return sorted(_REGISTRY)


def load_env_cfg(task_name, play=False):
    return deepcopy(_REGISTRY[task_name][0])


def load_rl_cfg(task_name):
    return deepcopy(_REGISTRY[task_name][1])
