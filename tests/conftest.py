"""What all tests share: needs that may not be skipped in CI, and a limit of time for each test."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEST_TIMEOUT = 120

# In a checkout that is not installed, subprocesses find the package as the tests do.
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


SESSION_FOLDERS = ("PRTE_MCA_prte_tmpdir_base", "OMPI_MCA_orte_tmpdir_base")
"""Where Open MPI 5 and 4 keep their session folders, instead of in /tmp."""


def pytest_configure(config: pytest.Config) -> None:
    """Give Open MPI a folder of its own, and undo what ``nohup make test &`` ignores.

    A shell starts background jobs with SIGINT ignored, nohup its command with SIGHUP. Programs inherit that, so
    tests that interrupt themselves or what they started would wait for nothing. A handler of ours, unlike an
    ignored signal, is not inherited; and the tests themselves still survive a hang-up.

    Its mpiexec calls its session folder after its pid, and one that was killed leaves it behind. When that number
    comes again, after days or a restart, mpiexec finds files where it wants to make new ones, and fails with "The
    PMIx server's listener thread failed to start".
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda _number, _frame: None)
    folder = tempfile.mkdtemp(prefix="ompi-")
    os.chmod(folder, 0o1777)  # a test starts ranks as another user
    os.environ.update(dict.fromkeys(SESSION_FOLDERS, folder))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no process of several is left with it at the end."""
    items.sort(key=lambda item: not _uses_the_network(item.path.relative_to(ROOT)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have one process run what may not run side by side: tests of one file, and all that use a network."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "network" if _uses_the_network(Path(file)) else file

    return ByFile(config, log)


def _uses_the_network(file: Path) -> bool:
    return not {"slurm", "reach"}.isdisjoint(file.parts)


def pytest_collection_finish() -> None:
    """What there is before the first test stays: looking for garbage need not go through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def nothing_left_open() -> Iterator[None]:
    """Have what a module's tests leave open reported at its end, and not in the test that happens to run then."""
    yield
    gc.collect()


def in_ci() -> bool:
    """Whether nothing may be left out."""
    return os.environ.get("CI", "").lower() == "true"


def need(reason: str, available: object) -> None:
    """Skip the test if something it needs is not there; in CI, fail it."""
    if not available:
        if in_ci():
            pytest.fail(f"missing in CI: {reason}", pytrace=False)
        pytest.skip(reason)


@pytest.fixture(name="need", scope="session")
def need_fixture() -> object:
    """:func:`need`, for tests that cannot import this file."""
    return need


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def mpich_python() -> str:
    """The interpreter of an environment with the MPICH wheel."""
    default = ROOT / ".venv-mpich" / "bin" / "python"
    path = os.environ.get("IPMPI_MPICH_PYTHON", str(default))
    need(f"no MPICH environment at {path}; 'make test' makes one", os.access(path, os.X_OK))
    return path


@pytest.fixture(autouse=True)
def limited_time(request: pytest.FixtureRequest) -> Iterator[None]:
    """End a test that hangs, with its stack, so that the others are still run."""
    marker = request.node.get_closest_marker("timeout")
    seconds = int(marker.args[0]) if marker else TEST_TIMEOUT

    def ring(signum: int, frame: object) -> None:
        raise TimeoutError(f"the test took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
