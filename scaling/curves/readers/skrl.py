"""skrl: its steps are vector steps, and begin anew with each session."""

from __future__ import annotations

import numpy as np

from scaling.curves.readers.base import EventReader, Files, Given, Log, Source

RETURN = "Reward / Total reward (mean)"


class Skrl(EventReader):
    """Written only where an episode has ended since the last write. `Instantaneous reward` is no return."""

    library = "skrl"

    def matches(self, tags: set[str]) -> bool:
        return any(tag.startswith("Reward / Total reward") for tag in tags)

    def read(self, files: Files, source: Source, given: Given) -> Log:
        num_envs = given.number("num_envs", "skrl's steps are vector steps")
        log, tag, notes = files.events(source.path), given.get("return_tag", RETURN), []
        log.sessions(tag)  # refuses files written side by side
        parts, done = [], 0.0
        for file in log.files:
            points = file.scalars.get(tag, np.empty((0, 2)))
            last = max((scalar[:, 0].max() for scalar in file.scalars.values()), default=0.0)
            first = min((scalar[:, 0].min() for scalar in file.scalars.values()), default=0.0)
            if first > done:  # not begun anew: the file goes on where the one before stopped
                done = 0.0
            elif done:
                notes.append(f"{file.path.name} counts from 0 again: the {done:g} vector steps before it are added")
            parts.append(points + np.array([done, 0.0]))
            done += last
        steps, returns = np.concatenate(parts).T
        return Log(steps * num_envs, returns, notes=notes)
