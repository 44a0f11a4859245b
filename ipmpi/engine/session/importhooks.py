"""Has libraries that show something, and debuggers, do it at the client, once user code imports them.

Nothing is imported here, and the environment variables stay as they are: programs that user code starts need not
have ipmpi.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from ipmpi.engine.session import debugging, displays
from ipmpi.engine.session.formats import bundled

Adapt = Callable[[Any], None]
"""Called with a module that has just been imported."""


class AfterImport:
    """A finder that lets others find, and calls a function with each module in its table once that is imported."""

    def __init__(self, table: Mapping[str, Adapt]) -> None:
        self._table = table

    def install(self) -> None:
        """Become the first finder, and adapt what is imported already."""
        for name, adapt in self._table.items():
            if name in sys.modules:
                adapt(sys.modules[name])
        sys.meta_path.insert(0, self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Called for each import."""
        adapt = self._table.get(name)
        if adapt is None:
            return None
        for finder in sys.meta_path:
            found = None if finder is self else finder.find_spec(name, path, target)
            if found is not None:
                if found.loader is not None:
                    found.loader = _Loader(found.loader, adapt)  # type: ignore[assignment]
                return found
        return None


class _Loader:
    """Loads as another does, and calls ``adapt`` then; the module never sees it."""

    def __init__(self, loader: Any, adapt: Adapt) -> None:
        self._loader = loader
        self._adapt = adapt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        spec.loader = self._loader
        module: ModuleType | None = self._loader.create_module(spec)
        spec.loader = self  # type: ignore[assignment]
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._adapt(module)


def _adapt_matplotlib(matplotlib: Any) -> None:
    """As notebooks do: before matplotlibrc, and after MPLBACKEND and what user code says."""
    if not os.environ.get("MPLBACKEND"):
        matplotlib.rcParams["backend"] = displays.BACKENDS[0]


def _adapt_ipython(functions: Any) -> None:
    """Without a shell, those of IPython print."""
    functions.display = _display
    functions.publish_display_data = _publish_display_data


def _display(*objs: object, **options: Any) -> displays.DisplayHandle | None:
    """Show values at the client of the command that runs."""
    return displays.current()(*objs, **options)


def _publish_display_data(
    data: Mapping[str, object], metadata: Mapping[str, object] | None = None, **_others: object
) -> None:
    """Show formats at the client of the command that runs."""
    displays.current().publish(bundled(data, metadata))


def install() -> None:
    """Adapt matplotlib, IPython and debuggers in this process; once in its life."""
    table = {
        "matplotlib": _adapt_matplotlib,
        "IPython.core.display_functions": _adapt_ipython,
        "pdb": debugging.adapt_set_trace,
        "ipdb": debugging.adapt_set_trace,
    }
    sys.breakpointhook = debugging.breakpoint_hook
    AfterImport(table).install()
