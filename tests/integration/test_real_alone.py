"""Engines that are not joined: --mpi=none under a launcher, and without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

pytestmark = [pytest.mark.slow, pytest.mark.mpi]


@pytest.fixture
def no_mpi4py(tmp_path: Path) -> str:
    """A folder for PYTHONPATH that hides mpi4py."""
    package = tmp_path / "hidden" / "mpi4py"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('hidden by the test')\n")
    return str(package.parent)


@pytest.mark.parametrize("option", ["none", "auto"])
def test_ranks_without_mpi4py_share_an_agent_and_nothing_else(
    flavour: Flavour, new_cluster: Callable[..., Cluster], no_mpi4py: str, option: str
) -> None:
    from real_clusters import tcp_peers, wait_for

    cluster = new_cluster(flavour)
    path = f"{no_mpi4py}:{cluster.environ['PYTHONPATH']}"
    cluster.launch(cluster.command(3, args=["--mpi", option]), PYTHONPATH=path)
    cluster.wait_for_engines(3)
    mec = cluster.mec()
    assert mec.get_ids() == [0, 1, 2]
    names = ("OMPI_COMM_WORLD_RANK", "PMI_RANK")
    mec.execute(
        f"import os, sys\nrank = next(int(os.environ[n]) for n in {names} if n in os.environ)\n"
        "loaded = 'mpi4py.MPI' in sys.modules"
    )
    assert mec.pull(("id", "rank", "loaded")) == [[i, i, False] for i in range(3)]
    (agent,) = cluster.agents()
    assert cluster.links(agent) == cluster.accepted() == 1, "one link for all"
    for engine in mec.cluster_info()["engines"]:
        assert engine["mpi"].startswith("not joined")
        assert tcp_peers(engine["pid"]) == []
        assert not cluster.links(engine["pid"])
    explained = "the engines share no communicator" in cluster.output()
    assert explained == (option == "auto")
    mec.kill()
    assert cluster.launchers[0].wait(20) == 0, cluster.output()
    assert wait_for(lambda: not cluster.rank_processes(), 10)


def test_an_engine_without_a_launcher(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster], no_mpi4py: str
) -> None:
    cluster = new_cluster(flavour_named("openmpi"))
    engine = [cluster.flavour.python, "-m", "ipmpi.cli.ipengine"]
    cluster.launch(engine, PYTHONPATH=f"{no_mpi4py}:{cluster.environ['PYTHONPATH']}")
    cluster.wait_for_engines(1)
    cluster.launch([*engine, "--mpi=none"])
    cluster.wait_for_engines(2)
    mec = cluster.mec()
    assert mec.get_ids() == [0, 1]
    mec.execute("mpi_is = mpi")
    assert mec.pull("mpi_is") == [None, None]
    assert mec.map(lambda x: 2 * x, range(9)) == list(range(0, 18, 2))


def test_one_engine_of_its_own_dies_and_the_others_go_on(
    flavour_named: Callable[[str], Flavour], new_cluster: Callable[..., Cluster]
) -> None:
    cluster = new_cluster(flavour_named("openmpi"))
    for number in range(2):
        cluster.launch([cluster.flavour.python, "-m", "ipmpi.cli.ipengine"])
        cluster.wait_for_engines(number + 1)
    mec = cluster.mec()
    first = next(engine for engine in mec.cluster_info()["engines"] if engine["id"] == 0)
    victim = next(process for process in cluster.launchers if process.pid == first["pid"])
    victim.kill()
    cluster.wait_for_engines(1)
    assert mec.get_ids() == [1]
    assert mec.pull("id") == [1]
    # Its id is free for the next one.
    cluster.launch([cluster.flavour.python, "-m", "ipmpi.cli.ipengine"])
    cluster.wait_for_engines(2)
    assert 1 in mec.get_ids()


@pytest.mark.parametrize(
    ("launcher", "library", "title"),
    [("openmpi", "mpich", "Open MPI's mpiexec"), ("mpich", "openmpi", "An mpiexec of the MPICH family (hydra)")],
    ids=["mpich under Open MPI", "Open MPI under hydra"],
)
def test_the_launcher_of_another_mpi_is_explained(
    flavour_named: Callable[[str], Flavour],
    new_cluster: Callable[..., Cluster],
    launcher: str,
    library: str,
    title: str,
) -> None:
    """The one aborts in MPI_Init, the other makes each rank a world of its own."""
    started, used = flavour_named(launcher), flavour_named(library)
    cluster = new_cluster(started)
    argv = [used.python if word == started.python else word for word in cluster.command(2)]
    assert cluster.launch(argv).wait(30) != 0
    said = cluster.output()
    assert said.count(f"{title} started 2 ranks, but each thinks it is alone") >= 1
    assert f"{used.python.removesuffix('/python')}/mpiexec" in said
    assert "--mpi none" in said
    assert "Traceback" not in said
