"""Tianshou 2: test/ and training/ count env steps, info/ epochs, update/ rounds. Settings are pickled: unread."""

from __future__ import annotations

import re

from scaling.curves.readers.base import EventReader, Files, Given, Log, Source, curve_of, number_of_name

SEED = re.compile(r"(?:^|_)seed=(\d+)$")


class Tianshou(EventReader):
    """The seed is in the folder's name as its experiments write it; info/update_step counts no gradient steps."""

    library = "Tianshou"

    def matches(self, tags: set[str]) -> bool:
        return bool({"test/returns_stat/mean", "training/returns_stat/mean"} & tags)

    def read(self, files: Files, source: Source, given: Given) -> Log:
        log, notes = files.events(source.path), []
        tag = "test/returns_stat/mean"
        if tag not in log.tags:
            tag = "training/returns_stat/mean"
            notes.append("no test episodes: the training return stands in")
        seed = number_of_name(SEED, source.path.name)
        return Log(*curve_of(log, tag, given), {} if seed is None else {"seed": seed}, notes)
