"""Options that hold for all calls of a view, an executor or a pool."""

from __future__ import annotations

from typing import Any, Final

from ..session import given
from .terms import TaskSettings, settings_for

OPTIONS: Final = frozenset(
    {"priority", "timeout", "expected", "retries", "depend", "ranks", "same_node", "name", "detach"}
)
"""Options of all calls of an executor or pool."""

_BEFORE = "give it to executor() or pool(), or run it before, on all engines: mec.apply(f)"
_ONE_PROCESS = "an engine is one process for all calls, and ipcluster has started it"

REFUSED: Final = {
    "initializer": _BEFORE,
    "initargs": _BEFORE,
    "mp_context": _ONE_PROCESS,
    "context": _ONE_PROCESS,
    "max_tasks_per_child": _ONE_PROCESS,
    "maxtasksperchild": _ONE_PROCESS,
    "thread_name_prefix": "calls run on engines, not in threads",
}
"""Arguments of Python's own executors and pools that have no meaning here, and why."""


def checked_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options; raise TypeError or ValueError if one is unknown or wrong."""
    options = {n: value for n, value in options.items() if n not in REFUSED or not (value is None or value == ())}
    unknown = sorted(set(options) - OPTIONS)
    if unknown and unknown[0] in REFUSED:
        raise TypeError(f"{unknown[0]!r} cannot be given to engines: {REFUSED[unknown[0]]}")
    if unknown:
        raise TypeError(f"{unknown[0]!r} is not an option of calls; options are: {', '.join(sorted(OPTIONS))}")
    settings_of(options).checked()
    depend = options.get("depend")
    if depend is not None:
        given.function(depend, "depend")
    return options


def settings_of(options: dict[str, Any]) -> TaskSettings:
    """Return those of the options that are settings."""
    return settings_for(**{name: value for name, value in options.items() if name != "depend"})
