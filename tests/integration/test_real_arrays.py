"""Arrays over real ranks: collectives of names, new blocks, files; against NumPy, under each MPI."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ipmpi.errors import ClientError, CommandTimeout, CompositeError, PeerError

if TYPE_CHECKING:
    from real_clusters import Cluster, Flavour

    from ipmpi.client import MultiEngineClient

pytestmark = [pytest.mark.slow, pytest.mark.mpi]

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("arrays_by_themselves.py")
CASES, SEED = "25", "5"


def test_what_ranks_do_together_gives_what_numpy_gives(flavour: Flavour) -> None:
    command = [flavour.launcher, *flavour.options, "-n", "4", flavour.python, str(PROGRAM), CASES, SEED]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **flavour.environ}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "fine"


@pytest.fixture
def mec(cluster: Cluster) -> MultiEngineClient:
    client = cluster.mec()
    client.reset()
    client.execute("import numpy as np; x = np.arange(3.0) + id")
    return client


def test_the_result_of_a_reduction_comes_here_or_stays_there(mec: MultiEngineClient) -> None:
    np.testing.assert_array_equal(mec.reduce("x"), [6, 10, 14])
    np.testing.assert_array_equal(mec.reduce("x", "max", targets=[2, 0], root=0), [2, 3, 4])
    assert mec.reduce("x[0] * 2", to="total", root=3) is None
    mec.execute("is_there = 'total' in globals()")
    assert mec.pull("is_there") == [False, False, False, True]
    assert mec[3]["total"] == 12
    mec.allreduce("x", "min", to="x")
    np.testing.assert_array_equal(mec.pull("x"), [np.arange(3.0)] * 4)
    mec.alltoall("[10 * id + other for other in range(4)]", to="got")
    assert mec.pull("got", targets=1) == [[1, 11, 21, 31]]


def test_a_broadcast_is_from_an_engine_or_from_here(mec: MultiEngineClient) -> None:
    mec.bcast("x", root=2)
    np.testing.assert_array_equal(mec.pull("x"), [np.arange(3.0) + 2] * 4)
    field = np.asfortranarray(np.random.default_rng(1).random((300, 200)))
    mec.bcast({"field": field, "name": "heat"}, targets=[1, 3])
    found = mec.pull(["field", "name"], targets=[1, 3])
    assert [name for _, name in found] == ["heat"] * 2
    for array, _ in found:
        np.testing.assert_array_equal(array, field)
        assert array.flags.f_contiguous
    assert "field" not in mec.keys(targets=0)[0]


def test_an_array_gets_other_blocks(mec: MultiEngineClient) -> None:
    whole = np.arange(60.0).reshape(10, 6)
    mec.scatter("T", whole)
    found = mec.redistribute("T", grid=(2, 2), halo=1, to="U")
    assert [block.shape for block in found.blocks] == [(5, 3)] * 4
    np.testing.assert_array_equal(found.gather(), whole)
    np.testing.assert_array_equal(mec[3]["U"][:2, :2], whole[4:6, 2:4])
    again = found.redistribute(axis=1)
    np.testing.assert_array_equal(again.gather(), whole)
    assert (again.name, mec[0]["U"].shape) == ("U", (10, 2))
    with pytest.raises(ValueError, match=r"on engines 0-1: it is an array .* call array\(\) again"):
        found.redistribute()


def test_a_mistake_costs_no_communicator_and_hangs_nobody(mec: MultiEngineClient) -> None:
    with pytest.raises(NameError, match=r"on engines 0-3: name 'no' is not defined"):
        mec.reduce("no")
    mec.execute("if id == 2: x = np.zeros(4)")
    with pytest.raises(ValueError, match=r"x is an array .* on engine 0, and an array .* on engine 2"):
        mec.reduce("x")
    with pytest.raises(ValueError, match=r"root=9 is none of the engines of this call, \[0-3\]"):
        mec.bcast("x", root=9)
    with pytest.raises(TypeError, match=r"3 is of type int on engine 0: it must be a list with an item for each"):
        mec.alltoall("3", to="y")
    mec.execute("def late():\n    import time\n    if id == 1: time.sleep(60)")
    with pytest.raises(CompositeError) as caught:
        mec.with_options(timeout=0.5).reduce("late()")
    assert {type(error) for _, error, *_ in caught.value.elist} == {CommandTimeout}
    np.testing.assert_array_equal(mec.reduce("np.ones(2)"), [4, 4])


def test_engines_without_mpi_say_so(mec: MultiEngineClient) -> None:
    code = "from ipmpi import communicator as c; kept, c._given[:] = c._given[:], []"
    mec.execute(code)
    try:
        with pytest.raises(ClientError, match="engines do this by MPI, and these share no communicator"):
            mec.reduce("x")
    finally:
        mec.execute("c._given[:] = kept")


# --- Files -----------------------------------------------------------------------------------------------------


@pytest.fixture
def with_h5py(mec: MultiEngineClient, need: Callable[[str, object], None]) -> MultiEngineClient:
    code = "import sys, importlib.util; mine = sys.executable, importlib.util.find_spec('h5py') is not None"
    mec.execute(code)
    python, has_it = mec[0]["mine"]
    if python != sys.executable and not has_it:
        pytest.skip(f"no h5py in the environment of {python}")
    need("no h5py; pip install h5py", has_it)
    return mec


def test_an_array_is_saved_and_loaded(with_h5py: MultiEngineClient, tmp_path: Path) -> None:
    mec, whole = with_h5py, np.arange(70.0).reshape(10, 7)
    mec.scatter("T", whole)
    T, path = mec.array("T"), tmp_path / "run.h5"
    T.save(path)
    U = T.redistribute(grid=(2, 2), halo=1, to="U")
    mec.execute("U *= 2")
    U.save(path, "later/U")
    with pytest.raises(ValueError, match=r"on engine 0: .*run.h5 has a T already: .* overwrite=True"):
        T.save(path)
    mec.execute("T += 1")
    T.save(path, overwrite=True)
    mec.execute("T[:] = 0; U[:] = 0")
    U.load(path, "later/U")
    T.load(path)
    np.testing.assert_array_equal(T.gather(), whole + 1)
    np.testing.assert_array_equal(U.gather(), whole * 2)
    assert mec[0]["U"][0, 0] == 0
    T.load(path, "later/U")  # in other blocks
    np.testing.assert_array_equal(T.gather(), whole * 2)


def test_what_is_wrong_with_a_file_is_said_and_hangs_nobody(with_h5py: MultiEngineClient, tmp_path: Path) -> None:
    mec = with_h5py
    mec.scatter("T", np.arange(8.0))
    T = mec.array("T")
    T.save(tmp_path / "a.h5", "T")
    with pytest.raises(OSError, match=r"on engine 0: .*no/folder\.h5"):
        T.save(tmp_path / "no" / "folder.h5")
    with pytest.raises(OSError, match="no dataset T/x can be made"):
        T.save(tmp_path / "a.h5", "T/x")
    with pytest.raises(CompositeError) as caught:
        T.load(tmp_path / "a.h5", "V")
    assert ["has no dataset V; it has T" in str(error) for _, error, *_ in caught.value.elist] == [True] * 4
    mec.execute("T = np.zeros(3)")
    with pytest.raises(CompositeError) as caught:
        mec.array("T").load(tmp_path / "a.h5", "T")
    assert "has shape (8,), and the array has (12,)" in str(caught.value.elist[0][1])
    with pytest.raises(ValueError, match="on engines 0-3: it is an array of float64 with shape"):
        T.save(tmp_path / "b.h5")
    mec.scatter("T", np.zeros(4_000_000))
    mec.execute("from resource import *\nif id == 0: setrlimit(RLIMIT_FSIZE, (1_000_000, RLIM_INFINITY))")
    with pytest.raises(CompositeError) as caught:
        mec.array("T").save(tmp_path / "c.h5")
    assert "File too large" in str(caught.value.elist[0][1])
    assert {type(error) for _, error, *_ in caught.value.elist} == {OSError, PeerError}
    mec.execute("if id == 0: setrlimit(RLIMIT_FSIZE, (RLIM_INFINITY, RLIM_INFINITY))")
    assert mec.reduce("1") == 4
