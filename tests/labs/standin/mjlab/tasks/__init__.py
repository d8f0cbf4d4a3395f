"""Registers a task that counts, in variants; one of them bears a name of mjlab's own."""

from types import SimpleNamespace

from mjlab.envs import Cfg, Term
from mjlab.tasks.registry import register_mjlab_task


def _register(name, cfg=None, actor=("actor",), critic=("critic",)):
    cfg = cfg or Cfg()
    register_mjlab_task(name, cfg, cfg, SimpleNamespace(obs_groups={"actor": actor, "critic": critic}))


_register("Mjlab-Clock")
_register("Mjlab-Cartpole-Balance")
_register("Mjlab-Clock-Plain", Cfg(groups=("actor",)), critic=("actor",))
_register("Mjlab-Clock-Unlimited", Cfg(terminations={"fell": Term(False)}))
_register("Mjlab-Clock-Timed", Cfg(terminations={"time_out": Term(True)}))
_register("Mjlab-Clock-Rgb", Cfg(groups=("actor", "critic", "camera")), actor=("actor", "camera"))
