"""Waiting until as many engines are registered as a program needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import limits
from .given import waiting_time, whole_number
from .waiting import check_waiting

if TYPE_CHECKING:
    from .session import Session


def wait_for_engines(session: Session, n: int, timeout: float | None) -> None:
    """Return when at least ``n`` engines are registered; see :meth:`TaskClient.wait_for_engines`."""
    wanted = whole_number(n, "n, the number of engines,", 0, limits.MAX_ENGINES)
    patience = waiting_time(timeout)
    session.check()
    if len(session.presence.ids) < wanted:
        check_waiting()
    ids = session.presence.wait_for_number(wanted, patience)
    if session.failure is not None:
        raise session.failure
    if len(ids) < wanted:
        missing = wanted - len(ids)
        are = "is" if missing == 1 else "are"
        raise TimeoutError(
            f"{len(ids)} of {wanted} engines are registered after {patience:g} s: {missing} {are} missing. "
            f"`ipcluster explain` says why engines do not come, `ipcluster engines -n {missing}` starts more; "
            f"wait_for_engines({wanted}) without a timeout waits for as long as it takes"
        )
