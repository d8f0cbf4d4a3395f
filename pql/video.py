"""A video of a trained policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import torch


def record(
    cfg: Any, path: Path, seconds: float = 10.0, fps: int = 30, warn: Callable[[str], None] = print
) -> str | None:
    """Write an MP4 of the run's newest policy; returns its path, or None with one line that says why not."""
    from pql.evaluation import load_policy, make_env

    try:
        import imageio.v2 as imageio

        env = make_env(cfg, 1, seed=1)
        policy, _ = load_policy(Path(cfg.run_dir), env.obs_dim, env.action_dim)
        policy.to(env.device)
        every = max(1, round(1 / (fps * env.dt)))  # control steps per frame
        obs = env.reset()
        temporary = path.with_name(f".{path.name}.part.mp4")
        rate = round(1 / (env.dt * every))
        with imageio.get_writer(temporary, fps=rate, codec="libx264", macro_block_size=8) as video:
            for i in range(int(seconds / env.dt)):
                if i % every == 0:
                    video.append_data(env.render(640, 480))
                with torch.no_grad():
                    obs = env.step(policy(obs)).obs
        temporary.replace(path)
        return str(path)
    except Exception as error:  # a run is no worse for want of its video
        warn(f"note: no video: {' '.join(str(error).split())}")
        return None
