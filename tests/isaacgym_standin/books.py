"""Books of episodes that are kept without the adapter, for `check_replay.py`.

They know which environments the simulator's setters have put joints into place in (so a task began an episode there),
whether the physics of that step came before or after, and what the task's own `step` returned.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

POST, PRE, SAME, LATER = "post", "pre", "same", "later"  # when a task resets: after the next step's physics, ...


class Page(NamedTuple):
    """One step of N environments."""

    action: Tensor
    obs: Tensor
    states: Tensor | None
    reward: Tensor
    flag: Tensor  # the task says that the episode has ended
    between: Tensor  # a new episode was begun since the last step, by whoever called `reset_idx`
    before: Tensor  # ... within this step, before its physics
    after: Tensor  # ... and after its physics
    age: Tensor  # steps of the episode that this step belonged to, this one included


class Books:
    """Watches a task: `pages` gets one page per step of it."""

    def __init__(self, task, sim, parts):
        self.pages, self._task, self._sim, self._parts = [], task, sim, parts
        self._step, task.step = task.step, self._watched
        self._age = torch.zeros(task.num_envs, dtype=torch.long)
        self._read = len(sim.resets)

    def _watched(self, action):
        sim, task = self._sim, self._task
        between, frame = self._begun(lambda when: True), sim.frame
        found, reward, flag, _ = self._step(action)
        read = self._read
        before = self._begun(lambda when: when == frame)
        self._read = read
        after = self._begun(lambda when: when > frame) & ~before
        self._age = torch.where(between | before, torch.ones_like(self._age), self._age + 1)
        if getattr(task, "max_consecutive_successes", 0) > 0:  # a goal that is reached starts its clock again
            self._age = torch.where(task.progress_buf == 0, torch.zeros_like(self._age), self._age)
        policy, critic = self._parts
        self.pages.append(
            Page(
                action.clone(),
                torch.cat([found[name] for name in policy], 1).clone(),
                torch.cat([found[name] for name in critic], 1).clone() if critic else None,
                reward.clone(),
                flag.clone() != 0,
                between,
                before,
                after,
                self._age.clone(),
            )
        )
        self._age = torch.where(after, torch.zeros_like(self._age), self._age)
        return found, reward, flag, _

    def _begun(self, counts):
        """Where an episode was begun since the last reading, at a frame that counts: (N,) bool."""
        found = torch.zeros(self._task.num_envs, dtype=torch.bool)
        for frame, env in self._sim.resets[self._read :]:
            if counts(frame):
                found[env] = True
        self._read = len(self._sim.resets)
        return found


class Fates:
    """What became of each step: "on", "fall", "time", "joined" (of no one episode), "lost" (a time limit whose last
    observation nobody saw); and of a fall whether its observation was lost.

    Args:
        pages: the first is the reset's last step, after which an episode runs everywhere.
        limit: steps of an episode; the flag is raised one step before.
        forced: whether that reset was asked for by raising every flag (and not by `reset_idx`).
    """

    def __init__(self, pages: list[Page], limit: int, forced: bool):
        self.pages, self.habits = pages, set()
        self.table, self.within = [], []
        pending = torch.full_like(pages[0].flag, forced)
        fallen = False
        self.falls_by = []  # whether any episode is known to have ended early, by this step
        for number, page in enumerate(pages):
            begun = page.between | page.before | page.after
            within = page.after & page.flag & ~pending
            old = page.age >= limit - 1
            row = []
            for e in range(len(pending)):
                if within[e]:
                    row.append("lost" if old[e] else "fall")
                elif begun[e] or pending[e]:
                    row.append("joined")
                else:
                    row.append("on" if not page.flag[e] else "time" if old[e] else "fall")
            self.table.append(row)
            self.within.append(within)
            if number:
                fallen = fallen or "fall" in row
                for habit, found in ((SAME, within), (POST, page.after & ~within), (PRE, page.before)):
                    self.habits |= {habit} if found.any() else set()
                self.habits |= {LATER} if page.between.any() else set()
            self.falls_by.append(fallen)
            # whose flag was left up waits for its reset; one that is passed over waits on
            pending = (page.flag & ~within) | (pending & ~begun)

    def usable(self, t: int, e: int) -> bool:
        """A flag on the last step may hide a fall, once falls are known to happen."""
        fate = self.table[t][e]
        return fate in ("on", "fall") or (fate == "time" and not self.falls_by[t])

    def count(self, fate: str) -> int:
        return sum(row.count(fate) for row in self.table[1:])

    def row(self, t: int, e: int, n_step: int, gamma: float):
        """What the window beginning with step t leaves, or None if it must not be learned from.

        (observed page's number, action, return, successor page's number, discount)
        """
        if not self.usable(t, e):
            return None
        total = 0.0
        for k in range(n_step):
            total += gamma**k * float(self.pages[t + k].reward[e])
            fate = self.table[t + k][e]
            if k == n_step - 1 or fate != "on" or not self.usable(t + k + 1, e):
                # a fall whose own observation is lost is followed by nothing; what stands there is what was acted in
                end = t + k - 1 if self.within[t + k][e] else t + k
                return t - 1, self.pages[t].action[e], total, end, 0.0 if fate == "fall" else gamma ** (k + 1)
        raise AssertionError("unreachable")
