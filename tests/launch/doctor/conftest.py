"""Real controllers with engines that have something wrong."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipmpi import furl
from ipmpi.cli import doctor

sys.path.insert(0, str(Path(__file__).parents[2] / "integration"))

if TYPE_CHECKING:
    from real_clusters import Cluster

ENGINE = [sys.executable, "-m", "ipmpi.cli.ipengine", "--mpi", "none"]


@pytest.fixture
def new_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Cluster]]:
    """Start a controller whose furl files are the ones that this process uses."""
    from real_clusters import Cluster, Flavour

    with contextlib.ExitStack() as stack:

        def start(**environ: str) -> Cluster:
            cluster = Cluster(tmp_path / "ipython", Flavour("none", sys.executable, ""), **environ)
            stack.callback(cluster.stop)
            monkeypatch.setenv("IPYTHONDIR", str(cluster.home))
            return cluster

        yield start


@pytest.fixture
def examined(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, dict[str, Any]]]]:
    """Run the doctor: its exit code, and its diagnostics by their checks. No secret is in what it says."""

    def run(*options: str) -> tuple[int, dict[str, dict[str, Any]]]:
        code = doctor.main(["--mpi", "none", "--json", *options])
        said = capsys.readouterr()
        for path in furl.security_dir().glob("*.furl"):
            secret = path.read_text().strip().rpartition("/")[2]
            assert not secret or secret not in said.out + said.err
        found: dict[str, dict[str, Any]] = {}
        rank = ["ok", "note", "warning", "problem"]
        for diagnostic in json.loads(said.out)["findings"]:
            known = found.get(diagnostic["check"])
            if known is None or rank.index(known["level"]) < rank.index(diagnostic["level"]):
                found[diagnostic["check"]] = diagnostic
        return code, found

    return run
