"""When MPI_Comm_spawn is refused, and that nothing else is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ipmpi.engine.mpi.spawning import refuse_spawn
from ipmpi.errors import KernelError


def library() -> Any:
    """What of mpi4py.MPI is looked at: a class with the two methods, and one below it."""

    class Intracomm:
        def Spawn(self, command: str) -> str:
            return f"spawned {command}"

        def Spawn_multiple(self, commands: list[str]) -> str:
            return f"spawned {commands}"

    class Cartcomm(Intracomm):
        pass

    return SimpleNamespace(Intracomm=Intracomm, Cartcomm=Cartcomm)


@pytest.mark.parametrize("transports", ["self,sm", "self,vader", "sm, self", "self"])
def test_processes_that_could_not_be_reached_are_not_started(transports: str) -> None:
    mpi = library()
    before = mpi.Cartcomm()
    assert refuse_spawn(mpi, {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": transports})
    for call in (
        lambda: before.Spawn("child"),
        lambda: mpi.Intracomm().Spawn("child", 1, root=0),
        lambda: mpi.Intracomm().Spawn_multiple(["child"]),
    ):
        with pytest.raises(KernelError, match=f"Start ipcluster with OMPI_MCA_btl={transports},tcp"):
            call()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OMPI_MCA_pml": "ob1"},
        {"OMPI_MCA_btl": "self,sm"},
        {"OMPI_MCA_pml": "ucx", "OMPI_MCA_btl": "self,sm"},
        {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,sm,tcp"},
        {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "^openib"},
        {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": ""},
    ],
    ids=str,
)
def test_where_they_can_be_reached_mpi_is_asked(environ: dict[str, str]) -> None:
    mpi = library()
    assert not refuse_spawn(mpi, environ)
    assert mpi.Intracomm().Spawn("child") == "spawned child"
