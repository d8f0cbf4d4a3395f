"""The Isaac Gym image's health: what it is for imports; the first time, where a GPU is there, one task steps.

Not each time: a simulation takes gigabytes of the GPU's memory, which the container's training may need.
"""

import sys
import tempfile
from pathlib import Path

import isaacgym  # noqa: F401  before torch
import isaacgymenvs  # noqa: F401
import torch

import pql.run.trainer  # noqa: F401
import tasks

STEPPED = Path(tempfile.gettempdir()) / "pql-isaacgym-steps"


def main() -> int:
    if torch.cuda.is_available() and not STEPPED.exists():
        env = tasks.make("Cartpole", 16, sim="isaacgym")
        obs = env.step(torch.zeros((16, env.action_dim), device=env.device)).obs
        env.close()
        if not torch.isfinite(obs).all():
            print("Cartpole's observations are no numbers")
            return 1
        STEPPED.touch()
        print(f"Cartpole steps on {env.device}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
