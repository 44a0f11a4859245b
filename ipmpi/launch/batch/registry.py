"""The registry of batch systems, built-in and from plug-ins."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Final

from ipmpi.errors import LauncherError
from ipmpi.launch.batch.batchsystem import BatchSystem, JobState, JobStatus, Line, Shape, Shell
from ipmpi.launch.batch.pbs import PBS
from ipmpi.launch.batch.slurm import SLURM

__all__ = ["BatchSystem", "JobState", "JobStatus", "Line", "Shape", "Shell", "batch_system", "batch_systems"]

ENTRY_POINTS: Final = "ipmpi.batch_systems"
"""The group in which a package names its :class:`BatchSystem`."""

_BUILT_IN: Final = {system.name: system for system in (SLURM, PBS)}


def batch_systems() -> dict[str, BatchSystem]:
    """Return all batch systems by name; a plug-in may replace a built-in one.

    Raises:
        LauncherError: a plug-in cannot be loaded.
    """
    added = [_loaded(point) for point in entry_points(group=ENTRY_POINTS)]
    return _BUILT_IN | {system.name: system for system in added}


def batch_system(name: str) -> BatchSystem:
    """Return the batch system with this name.

    Raises:
        LauncherError: there is none, or a plug-in cannot be loaded.
    """
    known = batch_systems()
    if name not in known:
        raise LauncherError(f"there is no batch system {name!r}; there are: {', '.join(sorted(known))}")
    return known[name]


def _loaded(point: EntryPoint) -> BatchSystem:
    package = point.dist.name if point.dist is not None else "an unknown package"
    plug_in = f"the batch system {point.name!r} of the package {package} ({point.value})"
    remedy = f"Report it to its authors, or: pip uninstall {package}"
    try:
        system = point.load()
    except Exception as error:
        raise LauncherError(f"{plug_in} cannot be loaded: {type(error).__name__}: {error}. {remedy}") from error
    if not isinstance(system, BatchSystem):
        raise LauncherError(f"{plug_in} is no BatchSystem but a {type(system).__name__}. {remedy}")
    return system
