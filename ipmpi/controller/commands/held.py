"""Engines that do not come back from a task, for displays (no I/O)."""

from __future__ import annotations

from ... import limits


class Held:
    """The task that holds each of these engines."""

    def __init__(self) -> None:
        self._labels: dict[int, str] = {}

    def note(self, engine: int, label: str) -> None:
        """An engine does not come back from a task of this label, or with "" has come back, or is gone."""
        if label:
            self._labels[engine] = label[: limits.LABEL]
        else:
            self._labels.pop(engine, None)

    def shown(self, engine: int, running: str | None) -> str | None:
        """What a display says that an engine does, whose queue says ``running``."""
        label = self._labels.get(engine)
        if label is None:
            return running
        held = f"{label}, a task that was told to end and has not"
        return held if running is None else f"{running}, which waits for {held}"
