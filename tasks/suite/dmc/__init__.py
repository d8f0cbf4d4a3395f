"""The tasks of dm_control's suite, one file for each domain, and their names."""

from __future__ import annotations

from tasks.suite.dmc import cartpole, cheetah, finger, hopper, humanoid, walker

_DOMAINS = (cartpole, cheetah, finger, hopper, humanoid, walker)
TASKS = {f"dmc/{name}": task for domain in _DOMAINS for name, task in domain.TASKS.items()}
