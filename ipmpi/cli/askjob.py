"""Ask the batch system when this job ends (layer L5). Loaded by one process of a job only, before MPI starts."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping

from ..environment import jobend

PATIENCE = 10.0
"""Seconds for an answer. A batch system that is busy shall not keep engines from starting."""


def ask(environ: Mapping[str, str], log: Callable[[str], None], patience: float = PATIENCE) -> float | None:
    """Seconds until the end of the job; None if nobody says."""
    give_up_at = time.monotonic() + patience
    for argv in jobend.questions(environ):
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
                timeout=max(0.1, give_up_at - time.monotonic()),
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            log(f"the end of this job is not known: {error}")
            return None
        left = jobend.answered(argv, done.stdout, environ, time.time())
        if left is not None:
            return left
        log(f"{' '.join(argv)} does not say when this job ends: {(done.stderr or done.stdout).strip()[:200]!r}")
    return None
