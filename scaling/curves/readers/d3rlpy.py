"""d3rlpy: params.json beside CSVs without a head (epoch, env step, value). Its TensorBoard counts epochs: unread."""

from __future__ import annotations

import json

from scaling.curves.readers.base import Files, Given, Log, Reader, Source
from scaling.curves.readers.torchrl import headless
from scaling.errors import InputError

TAGS = {"time_algorithm_update", "time_step"}


class D3rlpy(Reader):
    """params.json tells batch size and the critic's learning rate."""

    library = "d3rlpy"

    def find(self, files: Files) -> list[Source]:
        folders = {path.parent for path in files.named("params.json")}
        tables = [folder for folder in sorted(folders) if {folder / "evaluation.csv", folder / "rollout_return.csv"}
                  & set(files.paths)]  # fmt: skip
        events = [
            folder for folder in files.event_folders
            if TAGS.issubset(tag.rpartition("/")[2] for tag in files.events(folder).tags)
        ]  # fmt: skip
        return [Source(folder) for folder in tables + [f for f in events if f not in tables]]

    def read(self, files: Files, source: Source, given: Given) -> Log:
        folder, notes = source.path, []
        if not (folder / "params.json").exists():
            raise InputError("d3rlpy's TensorBoard counts epochs; give its CSVs (the folder of params.json)")
        name = given.get("return_tag", "evaluation")
        if not (folder / f"{name}.csv").exists():
            if "return_tag" in given:
                raise InputError(f"it has no {name}.csv; return_tag is the name of a CSV without its ending")
            name = "rollout_return"
            notes.append("no evaluations: the training return stands in")
        try:
            params = json.loads((folder / "params.json").read_text())["config"]["params"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"params.json cannot be read ({type(error).__name__})") from None
        settings = {"batch_size": params.get("batch_size"),
                    "learning_rate": params.get("critic_learning_rate", params.get("learning_rate"))}  # fmt: skip
        return Log(*headless(folder / f"{name}.csv", 3), {k: v for k, v in settings.items() if v is not None}, notes)
