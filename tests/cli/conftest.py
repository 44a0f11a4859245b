"""ipcluster as a program."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.running import Batch, Run


@pytest.fixture
def ipcluster(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def start(*arguments: str, **environ: str) -> Run:
        runs.append(Run(tmp_path, *arguments, **environ))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.process.send_signal(signal.SIGTERM)
        run.ends()
        assert run.process.stdout is not None
        run.process.stdout.close()


@pytest.fixture
def fake(tmp_path: Path, ipcluster: Callable[..., Run]) -> Iterator[Batch]:
    """A batch system of small scripts."""
    made = Batch(tmp_path / "batch", ipcluster)
    yield made
    for state in made.folder.glob("*.state"):
        made.end(int(state.stem), "CANCELLED")
