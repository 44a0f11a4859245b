"""Asking an engine what a word can become, while somebody types and must not wait."""

from __future__ import annotations

import concurrent.futures
from typing import Final

from ...errors import KernelError
from ...protocol import operations
from ..session import replies
from ..session.calls import Calls, label_of
from ..session.partial import CommandFuture
from ..session.session import Submission

COMPLETES_WITHIN: Final = 0.3
"""Seconds that a completion may take; later ones are of no use to somebody who types."""


def completions(calls: Calls, text: str, targets: list[int] | None) -> list[str]:
    """Ask one idle engine of ``targets`` what the last word of ``text`` can become.

    Returns:
        The completions; none if no engine is idle, or it does not answer in time.
    """
    label = label_of("complete", text)
    submission = Submission(operations.Complete(text), targets, "complete", label, one_idle=True)
    try:
        future = calls.session.command(submission)
        arrived = future.result(COMPLETES_WITHIN)
        return [str(each) for found in replies.values(arrived, "complete")[:1] for each in found or ()]
    except concurrent.futures.TimeoutError:
        if isinstance(future, CommandFuture) and calls.settings.interrupt is not None:
            calls.settings.interrupt(future.numbers)
        return []
    except (KernelError, concurrent.futures.CancelledError):
        return []
