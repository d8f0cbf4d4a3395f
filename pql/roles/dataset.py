"""A fixed dataset in the actor's place: one vector step of as many environments as there are transitions.

All critic updates belong to that step, so that env_steps is what was learned from, and the ratio updates / env_steps
what it is everywhere: passes over the data are ratio x batch size.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pql.algorithms.base import Algorithm
from pql.errors import UserError
from pql.memory.dataset import Steps
from pql.memory.replay import Replay, ring_state
from pql.memory.shared import Shared
from pql.memory.windows import NStepWindows, Places
from pql.roles.normalizer import Normalizer

COLUMNS = 1 << 16  # transitions whose windows are made together


def fill(replay: Replay, steps: Steps, n_step: int, gamma: float, reward_scale: float) -> None:
    """Put all windows of a dataset into a ring of that many rows, as one vector step.

    They are `NStepWindows`' own: column i of its k-th step is transition i + k, so that its first windows are those
    that begin with each transition.
    """
    device, count = replay.rows.device, len(steps.reward)
    obs, action, reward, next_obs, terminated, last = (torch.from_numpy(part) for part in steps)
    parts = []
    for start in range(0, count, COLUMNS):
        columns = torch.arange(start, min(start + COLUMNS, count))
        windows = NStepWindows(len(columns), action.shape[1], n_step, gamma)
        for k in range(n_step):
            i = (columns + k).clamp(max=count - 1)  # the last one ends an episode, and no window goes on past that
            places = Places(columns[:1], i)  # of a successor: whose it is
            made = windows.add(places, action[i], reward[i] * reward_scale, terminated[i], last[i], columns >= 0)
        parts.append((made.action, made.return_n, made.after, made.steps))
    first, return_n, after, lasted = (torch.cat(column).to(device) for column in zip(*parts))
    replay.append(obs.to(device), first, return_n, next_obs.to(device)[after], lasted)


class Dataset:
    """What there is of an actor where nothing acts: statistics of the data, for the learners and for checkpoints."""

    role = "actor"

    def __init__(self, cfg: Any, algorithm: Algorithm, replay: Replay, shared: Shared):
        self.cfg, self.algorithm, self.replay, self.shared = cfg, algorithm, replay, shared
        self.normalizer = Normalizer(algorithm.spaces.seen_dim, replay.rows.device)
        shared.normalizer.read(self.normalizer.state)

    def learn_from(self, steps: Steps) -> None:
        """Take in the data: rows of the ring, moments of observations and returns, the mean of the episodes."""
        a, shared = self.cfg.algo, self.shared
        fill(self.replay, steps, a.n_step, a.gamma, a.reward_scale)
        if a.normalize_obs:
            for start in range(0, len(steps.obs), COLUMNS):
                self.normalizer.update(torch.from_numpy(steps.obs[start : start + COLUMNS]).to(self.replay.rows.device))
            shared.normalizer.publish(self.normalizer.state)
        if self.algorithm.return_bound is not None:
            shared.returns.publish(return_moments(steps, a.gamma, a.reward_scale).to(self.replay.rows.device))
        returns = [float(rewards.sum()) for rewards in steps.episodes()]
        told = [np.mean(returns), len(steps.reward) / len(returns), len(returns)]
        shared.episodes.copy_(torch.tensor(told, dtype=torch.float64))
        shared.learning_starts = 0
        shared.vector_steps.fill_(1)

    def close(self) -> None:
        """It has no environments."""

    def state_dict(self) -> dict[str, Tensor]:
        return {"normalizer": self.normalizer.state, "data": self._checksum()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Raises UserError where the data is not what the run has learned from so far."""
        if not torch.equal(state["data"], self._checksum()):
            raise UserError(
                f"data={self.cfg.data} is not what this run began with: the dataset has changed, or max_env_steps, "
                "seed, algo.n_step, algo.gamma or algo.reward_scale; resume with the same, or name another run_dir"
            )
        self.normalizer.state.copy_(state["normalizer"])
        self.shared.normalizer.publish(self.normalizer.state)

    def _checksum(self) -> Tensor:
        return torch.tensor([zlib.crc32(ring_state(self.shared.ring)["rows"].cpu().numpy())])


def return_moments(steps: Steps, gamma: float, reward_scale: float) -> Tensor:
    """`ReturnScale.state` after an actor's every step of this data."""
    value, running = 0.0, []
    for reward, last in zip(steps.reward.tolist(), steps.last.tolist()):
        value = gamma * value + reward_scale * reward
        running.append(value)
        value = 0.0 if last else value
    seen = torch.tensor(running, dtype=torch.float64)
    moments = [torch.tensor(len(seen)), seen.mean(), (seen - seen.mean()).square().sum(), seen.abs().max()]
    return torch.stack([moment.double() for moment in moments])
