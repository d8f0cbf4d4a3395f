"""Registers a task that counts, in variants."""

from mjlab.envs import Cfg, Term
from mjlab.tasks.registry import register_mjlab_task

register_mjlab_task("Mjlab-Clock", Cfg())
register_mjlab_task("Mjlab-Clock-Plain", Cfg(groups=("actor",)), {"actor": ("actor",), "critic": ("actor",)})
register_mjlab_task("Mjlab-Clock-Unlimited", Cfg(terminations={"fell": Term(False)}))
register_mjlab_task("Mjlab-Clock-Timed", Cfg(terminations={"time_out": Term(True)}))
register_mjlab_task("Mjlab-Clock-Rgb", Cfg(groups=("actor", "critic", "camera")), {"actor": ("actor", "camera")})
