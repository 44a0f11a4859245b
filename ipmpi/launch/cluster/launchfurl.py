"""The furl of one launch of engines, which lies where they run and is worth no more than these engines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

PREFIX: Final = "ipengine-"


@dataclass(frozen=True)
class LaunchFurl:
    """What the controller has to know to give out the furl of a launch.

    Attributes:
        name: of the launch.
        file: for the furl.
        engines: their number.
        seconds: how long their job may last; None if that is not known, or there are several jobs.
        local: whether all are on the controller's machine.
        nodes: the machines that they run on; None if these are not known yet, or do not matter.
        asks: whether we are asked for them, when engines come.
    """

    name: str
    file: Path
    engines: int
    seconds: float | None = None
    local: bool = False
    nodes: tuple[str, ...] | None = None
    asks: bool = False

    def begins(self, *, again: bool) -> dict[str, object]:
        """Return what our controller is told when it starts; ``again``: when the engines are started again."""
        about = {"name": self.name, "file": str(self.file), "engines": self.engines, "seconds": self.seconds}
        where = {"local": self.local, "nodes": self.nodes, "asks": self.asks}
        return {"launch": {**about, **where, "again": again}}


def launch_furl_file(engine_furl_file: Path, run: str) -> Path:
    """Return the file for the furl of a launch, beside the furl file of all engines."""
    return engine_furl_file.with_name(f"{PREFIX}{run}.furl")
