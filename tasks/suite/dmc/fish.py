"""dmc/fish: stay upright in water, swim to a target."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tasks.suite.dmc.base import Suite, unit, within
from tasks.suite.dmc.rewards import tolerance
from tasks.task import State

_JOINTS = ("tail1", "tail_twist", "tail2", "finright_roll", "finright_pitch", "finleft_roll", "finleft_pitch")


class Upright(Suite):
    """Observation (21): joint angles, uprightness, velocities. Reward: uprightness."""

    file, substeps, obs_dim = "fish", 10, 21
    reads, stage = ("xmat",), "position"

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        (self._torso,) = self.bodies("torso")
        self._joints = self.columns(model.joint(name).qposadr[0] for name in _JOINTS)

    def draw(self, scene: Any, random: Any) -> None:
        scene.qpos("root")[3:] = unit(random, 4)
        for name in _JOINTS:
            scene.qpos(name)[:] = random.uniform(-0.2, 0.2)

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        upright = state.fields["xmat"][:, self._torso, 8:]
        return torch.cat((state.qpos.index_select(1, self._joints), upright, *self._more(state), state.qvel), dim=1)

    def _more(self, state: State) -> tuple[Tensor, ...]:
        return ()

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        return self.never(tolerance(state.fields["xmat"][:, self._torso, 8], 1, 1, 1))


class Swim(Upright):
    """Observation (24): as Upright's, with the target in the mouth's axes. Reward: mouth in the target, uprightness."""

    obs_dim = 24
    reads = ("xmat", "geom_xpos", "geom_xmat")
    episode_fields = ("geom_pos",)

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        self._mouth, self._target = self.geoms("mouth", "target")
        self._radii = float(model.geom("mouth").size[0] + model.geom("target").size[0])

    def draw(self, scene: Any, random: Any) -> None:
        super().draw(scene, random)
        ranges = (-0.4, 0.4), (-0.4, 0.4), (0.1, 0.3)
        scene.model.geom("target").pos[:] = [random.uniform(*bounds) for bounds in ranges]

    def _more(self, state: State) -> tuple[Tensor, ...]:
        places = state.fields["geom_xpos"]
        to_target = places[:, self._target] - places[:, self._mouth]
        return (within(to_target, state.fields["geom_xmat"][:, self._mouth]),)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        near = tolerance(self._more(state)[0].norm(dim=1), 0, self._radii, 2 * self._radii)
        upright = 0.5 * (state.fields["xmat"][:, self._torso, 8] + 1)
        return self.never((7 * near + upright) / 8)


TASKS = {"fish-upright": Upright, "fish-swim": Swim}
