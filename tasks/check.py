"""Is a task sane? `python -m tasks.check Ant` prints how a zero and a random policy fare."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch
from torch import Tensor

from tasks.errors import TaskError
from tasks.registry import make


def check(name: str, num_envs: int = 64, seed: int = 0, **options: Any) -> dict[str, dict[str, float]]:
    """Mean return and length of the first episode of every environment, under no action and random actions.

    Returns:
        {"zero": {"episode_return", "episode_length", "terminated", "diverged"}, "random": the same}: means over
        `num_envs` episodes; terminated is the share that did not last to the time limit, diverged a count.
    """
    found = {}
    for policy in ("zero", "random"):
        env = make(name, num_envs, seed=seed, **options)
        generator = torch.Generator().manual_seed(seed)
        alive = torch.ones(num_envs, dtype=torch.bool, device=env.device)
        totals = torch.zeros(num_envs, device=env.device), torch.zeros(num_envs, device=env.device)
        terminated, diverged = torch.zeros_like(alive), 0
        for _ in range(env.max_episode_steps):
            action: Tensor = torch.rand(num_envs, env.action_dim, generator=generator).to(env.device) * 2 - 1
            step = env.step(action * (policy == "random"))
            totals[0].add_(step.reward * alive)
            totals[1].add_(alive)
            terminated |= step.terminated & alive
            diverged += int((~step.valid & alive).sum())
            alive &= ~(step.terminated | step.truncated)
            if not alive.any():
                break
        env.close()
        found[policy] = {
            "episode_return": float(totals[0].mean()),
            "episode_length": float(totals[1].mean()),
            "terminated": float(terminated.float().mean()),
            "diverged": diverged,
        }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task")
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        for policy, found in check(arguments.task, arguments.num_envs, arguments.seed).items():
            print(f"{policy:7s}", "  ".join(f"{key} {value:.2f}" for key, value in found.items()))
    except TaskError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
