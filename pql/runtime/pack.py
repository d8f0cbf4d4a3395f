"""One process, several runs: the roles of all replicas side by side, in the order in which `sync` has those of one.

On a CPU, and on a GPU, where an update of all of them is one graph. There is no pack with a process for each role: what
one leaves idle is for another pack.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
from pathlib import Path
from typing import Any, Mapping, Sequence

import torch

from pql.config import make_env
from pql.memory.shared import ROLES
from pql.roles.actor import Actor
from pql.roles.build import LEARNERS, Parts, make_replay
from pql.roles.learner import Learner, seed_of
from pql.roles.pack import Actors, Learners, lay_out_rings, share_counters
from pql.runtime import checkpoint, sync
from pql.runtime.packing import compiles

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's mallopt


class Pack:
    """The roles of K runs.

    Args:
        cfgs: that differ in seed, run_dir and the `numbers` alone.
        parts: of each, at the same counters.
        numbers: option of the algorithm -> its values (K,), where these differ.
    """

    def __init__(self, cfgs: Sequence[Any], parts: Sequence[Parts], numbers: Mapping[str, torch.Tensor]):
        self.compiles = compiles(cfgs[0], len(cfgs))
        # the gradients are those of the pack: of a replica there is nothing to compile
        self.cfgs, self.numbers = [dataclasses.replace(cfg, compile=False) for cfg in cfgs], numbers
        self.shared = [part.shared for part in parts]
        lay_out_rings(self.shared)
        seeds = [seed_of(cfg.seed, "environments") % 2**31 for cfg in cfgs]
        self.env = make_env(cfgs[0], cfgs[0].num_envs, seeds, cfgs[0].sim.threads)
        self.roles = [self._roles_of(k, part.algorithm) for k, part in enumerate(parts)]

    def _roles_of(self, k: int, algorithm: Any) -> list[Actor | Learner]:
        cfg, shared = self.cfgs[k], self.shared[k]
        made: list[Actor | Learner] = []
        for role in ROLES:
            replay = make_replay(cfg, algorithm, shared)
            if role in LEARNERS:
                made.append(LEARNERS[role](cfg, algorithm, replay, shared))
            else:
                made.append(Actor(cfg, self.env.sets[k], algorithm, replay, shared))
        return made

    def load(self, folders: Sequence[Path | None]) -> None:
        """The states in these checkpoints, all of one step; or the beginning."""
        for roles, folder in zip(self.roles, folders):
            if folder is not None:
                for role in roles:
                    role.load_state_dict(checkpoint.load_tensors(folder, role.role))

    def join(self) -> None:
        """Lay side by side what each replica has. From now on all go the same way."""
        actors, v_learners, p_learners = zip(*self.roles)
        if actors[0].obs is None:
            obs = self.env.reset()
            for actor in actors:
                actor.begin(obs[actor.env.rows])
        share_counters(self.shared)
        self.actors = Actors(actors, self.env)
        self.learners = [Learners(some, self.numbers, self.compiles) for some in (v_learners, p_learners)]

    def run(self, monitors: Any) -> None:
        """Train until the monitors, seen as one, are finished; ends with checkpoints."""
        keep_memory()
        monitors.start_clock()
        sync.take_turns(monitors, self.actors, *self.learners)
        monitors.stop_clock()
        if monitors.moved:
            monitors.save()

    def close(self) -> None:
        self.env.close()


def keep_memory() -> None:
    """Let the C library keep what is freed: a pack's intermediate results are larger than what it gives back at once.

    To have the same pages from the system again at every operation took a third of an update.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for option, size in ((M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, 1 << 30), (M_TOP_PAD, 1 << 26)):
            mallopt(option, size)
