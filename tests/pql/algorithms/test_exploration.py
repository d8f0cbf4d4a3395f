"""Mixed exploration: one noise scale per environment."""

from __future__ import annotations

import torch

from pql.algorithms.base import Nets
from pql.algorithms.pql import PQL, PQLOptions
from tasks.base import Spaces


class MixedNoise:
    """What PQL adds to an action, which is here the observation itself."""

    def __init__(self, num_envs, low, high):
        self.algorithm = PQL(PQLOptions(noise_low=low, noise_high=high), Spaces(1, 1))
        self.memory = self.algorithm.exploration(num_envs, torch.device("cpu"))

    def __call__(self, action, generator):
        return self.algorithm.explore(Nets(policy=lambda obs: obs), action, self.memory, generator)


def test_every_environment_has_its_own_scale_spread_evenly():
    noise = MixedNoise(4, 0.05, 0.8)
    generator = torch.Generator().manual_seed(0)
    draws = torch.cat([noise(torch.zeros(4, 500), generator) for _ in range(40)], 1)  # 20000 for each environment
    for row, scale in zip(draws, (0.05, 0.3, 0.55, 0.8)):
        inside = row[row.abs() < 1]  # what clipping leaves alone
        # the share within one scale of zero is 68.27 %; its standard error is .33 %, five are 1.7 %
        assert abs(float((row.abs() < scale).double().mean()) - 0.6827) < 0.017
        assert abs(float(inside.mean())) < 5 * scale / 20000**0.5
    assert float(draws.abs().max()) <= 1


def test_noisy_actions_stay_within_the_range_and_follow_their_generator():
    noise = MixedNoise(8, 0.5, 2.0)
    action = torch.full((8, 3), 0.9)
    one, two = (noise(action, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, two) and float(one.abs().max()) <= 1
    assert torch.equal(action, torch.full((8, 3), 0.9))  # the policy's own action is not written to
    assert not torch.equal(one, noise(action, torch.Generator().manual_seed(2)))


def test_one_environment_takes_the_smallest_scale():
    assert MixedNoise(1, 0.1, 0.8).memory["scale"].tolist() == [[torch.tensor(0.1).item()]]
