"""``python -m benchmarks``: the figures of ``python -m ipmpi.bench``, and the same work done by other systems."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from ipmpi.bench.__main__ import FAILURES, Run, finish, parser
from ipmpi.bench.figures import Figure

from . import baselines
from .ratios import ratio_table, ratios

BASELINE_PARTS: Final = ("steer", "bulk", "farm")
"""Parts that other systems can do, too."""


class Comparison(Run):
    """A run that measures other systems after ours."""

    failures = (*FAILURES, baselines.BaselineFailed)

    def everything(self) -> None:
        """Ours first, then the others."""
        super().everything()
        parts = [part for part in self.parts if part in BASELINE_PARTS]
        found = baselines.installed()
        missing = [name for name in baselines.PACKAGES if name not in found]
        if missing:
            self.note(f"not installed, so not compared: {', '.join(missing)}")
        for name in found if parts else []:
            self.collect(name, self._baseline(name, parts), baselines.LIMIT + 20)

    def _baseline(self, name: str, parts: list[str]) -> Iterator[Figure]:
        # A generator, so that a failure comes up where figures are collected.
        yield from baselines.measure(name, parts, self.engines, self.options.transfer, self.options.repeat)

    def tables(self) -> str:
        """The figures of all systems, and how many times better ours are."""
        return "\n\n".join(filter(None, [super().tables(), ratio_table(ratios(self.figures))]))

    def record(self) -> dict[str, Any]:
        """Everything, for ``json.dump``."""
        return {**super().record(), "ratios": [vars(ratio) for ratio in ratios(self.figures)]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, compare and report; returns the exit code."""
    command_line = parser("python -m benchmarks")
    command_line.epilog = f"Compares with those installed of {', '.join(baselines.PACKAGES)}."
    return finish(Comparison(command_line.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
