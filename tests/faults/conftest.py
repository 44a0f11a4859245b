"""A disk that fails."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, need: Callable[[str, object], None]) -> Path:
    """The library to preload."""
    need("no gcc", shutil.which("gcc"))
    path = tmp_path_factory.mktemp("disk") / "disk.so"
    source = HERE / "failing_disk.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-o", path, source, "-ldl"], check=True)
    return path
