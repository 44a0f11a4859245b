"""Asking an engine what a word can become, while somebody types and must not wait."""

from __future__ import annotations

import concurrent.futures
from typing import Any, Final

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
    found = _asked(calls, Submission(operations.Complete(text), targets, "complete", label_of("complete", text)))
    return [str(each) for each in found or ()]


def description(calls: Calls, name: str, targets: list[int] | None, with_source: bool) -> str | None:
    """Ask one idle engine of ``targets`` about the object of a name.

    Returns:
        A text; None if there is no such name, no engine is idle, or it does not answer in time.
    """
    operation = operations.Describe(name, with_source)
    found = _asked(calls, Submission(operation, targets, "describe", label_of("describe", name)))
    return found if isinstance(found, str) else None


def _asked(calls: Calls, submission: Submission) -> Any:
    """What an idle engine answers; None if that takes too long."""
    try:
        future = calls.session.command(submission._replace(one_idle=True))
        return next(iter(replies.values(future.result(COMPLETES_WITHIN), submission.method)), None)
    except concurrent.futures.TimeoutError:
        if isinstance(future, CommandFuture) and calls.settings.interrupt is not None:
            calls.settings.interrupt(future.numbers)
    except (KernelError, concurrent.futures.CancelledError):
        pass
    return None
