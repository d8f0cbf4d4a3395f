"""A video of a trained policy, at the speed of life."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Callable

import torch

from pql.config import make_env
from pql.run import evaluation


def record(
    cfg: Any,
    path: Path,
    seconds: float = 10.0,
    fps: int = 30,
    seed: int = 1,
    width: int = 640,
    height: int = 480,
    which: str = "newest",
    warn: Callable[[str], None] = print,
) -> str | None:
    """Write an MP4 of the newest policy of the run in `cfg.run_dir`, whole or not at all.

    One frame shows every so many control steps as come nearest to `fps`, and the file plays at just the rate that
    this gives. Episodes that end within it begin anew.

    Returns:
        The path; or None, and one line to `warn` that says why not and what to do: no OpenGL, no encoder.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.part.mp4")
    try:
        import imageio.v2 as imageio

        env = make_env(cfg, 1, seed)
        policy, _ = evaluation.load_policy(cfg, Path(cfg.run_dir), env.spaces, warn, which)
        policy.to(env.device)
        steps_per_frame = max(1, round(1 / (fps * env.dt)))
        obs = env.reset()
        first = env.render(width, height)  # before a file is begun: there may be nothing to render with
        frames = max(1, round(seconds / (env.dt * steps_per_frame)))
        began = time.monotonic()
        with evaluation.one_torch_thread(), imageio.get_writer(
            temporary,
            fps=1 / (env.dt * steps_per_frame),
            codec="libx264",
            pixelformat="yuv420p",  # what browsers and players expect
            output_params=["-crf", "23", "-movflags", "+faststart"],
            macro_block_size=2,
            ffmpeg_log_level="error",
        ) as video:
            video.append_data(first)
            for number in range(1, frames):
                for _ in range(steps_per_frame):
                    with torch.no_grad():
                        obs = env.step(policy(obs)).obs
                video.append_data(env.render(width, height))
                if number == min(10, frames - 1):
                    left = (time.monotonic() - began) / number * (frames - number)
                    warn(f"filming {seconds:g} s of the policy: about {left:.0f} s")
        env.close()
        temporary.replace(path)
        return str(path)
    except Exception as error:  # a run is no worse for want of its video
        warn(f"note: no video: {reason(error)}")
        return None
    finally:
        temporary.unlink(missing_ok=True)


def reason(error: Exception) -> str:
    """What went wrong in one line; an encoder's own words go to the terminal, its command to nobody."""
    text, stopped, _ = str(error).partition("FFMPEG COMMAND:")
    text = " ".join(text.split()) or type(error).__name__
    return f"the encoder stopped ({text}); what it said stands above" if stopped else text
