"""The options that the page on magics compares with those of ipyparallel, each tried."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ipmpi.ipython.pxoptions import PX

PAGE = Path(__file__).parents[2] / "docs" / "magics.rst"

THEIRS = {
    "-b", "--block", "-a", "--noblock", "--stream", "--no-stream", "-t", "--targets", "--verbose", "--no-verbose",
    "--progress-after", "--signal-on-interrupt", "-r", "-e", "--group-outputs", "-o", "--out", "--local",
}  # fmt: skip
"""Those of ``%%px`` in ipyparallel 9.2."""

VALUES = {
    "-t": "0:4:2", "--targets": "all", "--progress-after": "5", "--signal-on-interrupt": "SIGINT",
    "--group-outputs": "order", "-o": "kept", "--out": "kept", "--fold": "numeric", "--ranks": "0",
}  # fmt: skip


def documented() -> list[str]:
    table = PAGE.read_text().partition("Options of ``%%px``\n")[2]
    rows = re.findall(r"^   \* - (``-.*)$", table, re.MULTILINE)
    return [option for row in rows for option in re.findall(r"``(-[\w-]+)``", row)]


def test_the_page_has_all_options() -> None:
    ours = {flag for action in PX._actions for flag in action.option_strings}
    assert ours >= THEIRS
    assert set(documented()) == ours - {"-v"}


@pytest.mark.parametrize("option", documented())
def test_each_option_can_be_used(option: str, shell: Any, mec: Any) -> None:
    result = shell.run_cell(f"%%px {option} {VALUES.get(option, '')}\nx = id")
    assert result.success
    assert mec.pull("x", targets=[0, 2]) == [0, 2]
