"""A world that only counts, in torch: what the stand-ins of mjlab and Isaac Lab simulate, and the truth about it.

An observation says which environment, episode and step it is, and what was done; so a transition can be checked by what
it says itself.
"""

import os
import signal
import time

import torch

LIMIT, DT, ACTIONS = 12, 0.5, 2


def reward_of(who, episode, age):
    """For arriving at step `age`: a whole number in [-5, 5]."""
    return (7 * who + 3 * episode + age) % 11 - 5


def ends_at(who, episode):
    """(age at which the episode ends, whether the task says terminated, whether it says timed out)."""
    early = 2 + (who + 2 * episode) % (LIMIT - 3)
    fates = {0: (early, True, False), 1: (LIMIT, True, True), 2: (1, True, False), 3: (early, False, True),
             4: (early, True, True)}  # fmt: skip
    return fates.get((3 * who + 5 * episode) % 7, (LIMIT, False, True))


class Clock:
    """N counters. `reward`, `terminated` and `time_outs` are rewritten in place, as both packages do.

    Args:
        fault: what goes wrong in step number `at`: raise, kill, hang, nan (in environment 0).
    """

    def __init__(self, num_envs, seed, device, fault=None, at=3):
        self.fault, self.at, self.steps = fault, at, 0
        self.who = torch.arange(num_envs, device=device) + 10 * (seed % 10)
        self.episode, self.age = torch.full_like(self.who, -1), torch.zeros_like(self.who)
        self.deed, self.reward, self.contact, self.broken = torch.zeros(4, num_envs, device=device)
        self.terminated, self.time_outs = torch.zeros(2, num_envs, dtype=torch.bool, device=device)

    def begin(self, ids):
        self.episode[ids] += 1
        self.age[ids], self.deed[ids], self.broken[ids] = 0, 0.0, 0.0

    def advance(self, action):
        self.steps += 1
        self.age += 1
        self.deed.copy_(action.sum(1))
        if self.steps == self.at:
            self._go_wrong()
        for row, (who, episode, age) in enumerate(zip(*(part.tolist() for part in (self.who, self.episode, self.age)))):
            end, fell, late = ends_at(who, episode)
            self.reward[row] = DT * reward_of(who, episode, age)
            self.terminated[row], self.time_outs[row] = age == end and fell, age == end and late
        return self.terminated | self.time_outs

    def _go_wrong(self):
        if self.fault == "raise":
            raise ValueError("three is\ntoo many")
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "hang":
            time.sleep(3600)
        if self.fault == "nan":
            self.broken[0] = float("nan")

    def seen(self):
        """(N, 5): who, episode, age, deed, foot contact."""
        return torch.stack((self.who, self.episode, self.age, self.deed + self.broken, self.contact), 1)
