"""CleanRL: one point per episode at global_step (env steps over all environments), its arguments as a text table."""

from __future__ import annotations

from typing import Any

from scaling.curves.readers.base import EventReader, Files, Given, Log, Source, curve_of

ARGUMENTS = "hyperparameters/text_summary"


class CleanRL(EventReader):
    """Several episodes may end at one step: they are averaged later."""

    library = "CleanRL"

    def matches(self, tags: set[str]) -> bool:
        return "charts/episodic_return" in tags

    def read(self, files: Files, source: Source, given: Given) -> Log:
        log = files.events(source.path)
        arguments = dict(
            [cell.strip() for cell in row.strip().strip("|").split("|", 1)]
            for row in log.text(ARGUMENTS).splitlines()
            if row.count("|") >= 3
        )
        settings, on_policy = settings_of(arguments)
        return Log(*curve_of(log, "charts/episodic_return", given), settings, [], on_policy)


def settings_of(arguments: dict[str, str]) -> tuple[dict[str, Any], bool]:
    """Settings, and whether it is on-policy: its batch_size is then a rollout, minibatch_size an update's."""

    def number(key: str) -> float | None:
        try:
            return float(arguments[key])
        except (KeyError, ValueError):
            return None

    on_policy = "num_minibatches" in arguments
    rollout, num_envs, every = number("batch_size"), number("num_envs"), number("train_frequency") or 1.0
    rate = number("q_lr")  # SAC's critic; DDPG, TD3, DQN and PPO have one rate
    settings = {
        "task": arguments.get("env_id"),
        "seed": int(arguments["seed"]) if arguments.get("seed", "").isdigit() else None,
        "batch_size": number("minibatch_size") if on_policy else rollout,
        "learning_rate": number("learning_rate") if rate is None else rate,
    }
    if on_policy and rollout and number("update_epochs"):
        settings["utd"] = number("update_epochs") * number("num_minibatches") / rollout
    elif "buffer_size" in arguments and num_envs:
        settings["utd"] = 1.0 / num_envs / every  # once learning has started
    return {key: value for key, value in settings.items() if value is not None}, on_policy
