"""A control step's last substep on plain MuJoCo, for `cfrc_ext`: `mujoco.batch` has no call that fills it under RK4."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import mujoco
import numpy as np
from mujoco.batch import Batch

_WHOLE = mujoco.mjtState.mjSTATE_INTEGRATION


class LastSubstep:
    """Steps every simulation of `batch` once more and calls mj_rnePostConstraint, as Gymnasium does.

    Args:
        batch: its rows are advanced. Simulations that have model fields of their own cost a copy of the model each.
        outputs: {MjData's name: the batch's own (N, ...) array}, written to.
        threads: each has an MjData of its own; MuJoCo releases Python's lock while it steps.
    """

    def __init__(self, batch: Batch, outputs: dict[str, np.ndarray], threads: int):
        self.batch, self.outputs = batch, outputs
        self.own_models = False
        self._shares = [range(first, batch.nsim, threads) for first in range(threads)]
        self._models = [batch.model for _ in self._shares]
        self._data = [mujoco.MjData(batch.model) for _ in self._shares]
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def give_models(self) -> None:
        """From now on every simulation's model is its own."""
        self.own_models = True
        self._models = [self.batch.get_model(0) for _ in self._shares]

    def __call__(self) -> None:
        each = map if self._pool is None else self._pool.map
        for _ in each(self._step, self._shares, self._models, self._data):
            pass  # an exception within one comes out here

    def _step(self, share: range, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        rows, warning = self.batch.state, self.batch.warning
        for index in share:
            if self.own_models:
                self.batch.get_model(index, model)
            mujoco.mj_setState(model, data, rows[index], _WHOLE)
            mujoco.mj_step(model, data)
            mujoco.mj_rnePostConstraint(model, data)
            mujoco.mj_getState(model, data, rows[index], _WHOLE)
            for name, values in self.outputs.items():
                values[index] = getattr(data, name)
            if data.warning.number.any():
                warning[index, :, 1] += data.warning.number
                data.warning.number[:] = 0
