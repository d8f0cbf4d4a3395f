"""rl_games: rewards/step, a round early under continuous PPO, scaled under SAC."""

from __future__ import annotations

import numpy as np

from scaling.curves.readers.base import EventReader, Files, Given, Log, Source, curve_of
from scaling.errors import InputError


class RlGames(EventReader):
    """PPO has shaped_rewards/*, SAC info/alpha. Its files tell no task, seed, batch size or ratio."""

    library = "rl_games"

    def matches(self, tags: set[str]) -> bool:
        return {"rewards/step", "info/epochs"} <= tags

    def read(self, files: Files, source: Source, given: Given) -> Log:
        log, settings = files.events(source.path), {}
        on_policy = "info/alpha" not in log.tags
        steps, returns = curve_of(log, "rewards/step", given)
        if on_policy:
            steps = steps + shift(*log.curve("info/epochs"))
            rates = log.curve("info/last_lr")[1] if "info/last_lr" in log.tags else np.empty(0)
            if len(rates) and (rates == rates[0]).all():  # an adaptive one does not tell what it was set to
                settings["learning_rate"] = float(np.round(rates[0], 9))
        else:
            returns = returns / given.number("reward_scale", "SAC's return is scaled; 1 if reward_shaper has no scale")
        return Log(steps, returns, settings, [], on_policy)


def shift(steps: np.ndarray, epochs: np.ndarray) -> float:
    """Env steps between the stamp of an epoch and its end.

    steps, epochs: (T,) of info/epochs. The continuous agent stamps epoch e with the (e - 1) F steps before it, the
    discrete one with e F; F, the steps of an epoch, is the difference of two stamps.
    """
    forward = np.diff(steps)[(np.diff(steps) > 0) & (np.diff(epochs) == 1)]
    if not len(forward):
        raise InputError("it has fewer than two epochs, so the steps of one cannot be told")
    frames = float(np.median(forward))
    return 0.0 if steps[0] == epochs[0] * frames else frames
