"""TensorBoard event files that no other reader knows: their user says which tag is the return and what a step is."""

from __future__ import annotations

from scaling.curves.readers.base import Ask, EventReader, Files, Given, Log, Source, curve_of


class TensorBoard(EventReader):
    """Steps count whatever the program that wrote them counted."""

    library = "TensorBoard"

    def matches(self, tags: set[str]) -> bool:
        return bool(tags)

    def read(self, files: Files, source: Source, given: Given) -> Log:
        log = files.events(source.path)
        if "return_tag" not in given:
            scalars = sorted({tag for file in log.files for tag in file.scalars})
            raise Ask("return_tag", f"a tag of {', '.join(scalars[:8])}{', ...' if len(scalars) > 8 else ''}")
        factor = given.number("env_steps_per_step", "1 where its steps are env steps over all environments")
        steps, returns = curve_of(log, "", given)
        return Log(steps * factor, returns)
