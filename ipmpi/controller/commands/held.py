"""Engines that do not return from a task, for displays (no I/O)."""

from __future__ import annotations

from collections.abc import Iterator

from ... import limits
from ...ids import Ids


class Held:
    """The task that holds each of these engines."""

    def __init__(self) -> None:
        self._labels: dict[int, str] = {}

    def note(self, engine: int, label: str) -> None:
        """An engine does not return from a task with this label; "": it has returned, or is lost."""
        if label:
            self._labels[engine] = label[: limits.LABEL]
        else:
            self._labels.pop(engine, None)

    def forget(self, engines: Ids) -> None:
        """Engines are lost."""
        for engine in [each for each in self._labels if each in engines]:
            del self._labels[engine]

    def apart(self, engines: range) -> Iterator[range]:
        """Divide engines so that each that does not return is by itself."""
        first = 0
        for at in sorted(engines.index(each) for each in self._labels if each in engines):
            yield from (run for run in (engines[first:at], engines[at : at + 1]) if run)
            first = at + 1
        if first < len(engines):
            yield engines[first:]

    def shown(self, engine: int, running: str | None) -> str | None:
        """Return what a display shows for an engine whose queue has ``running``."""
        label = self._labels.get(engine)
        if label is None:
            return running
        held = f"{label}, a task that was told to end and has not"
        return held if running is None else f"{running}, which waits for {held}"
