"""Waiting in coroutines of the user's own event loop."""

from __future__ import annotations

import concurrent.futures
import contextlib
import sys
from typing import Any


def runs_event_loop() -> bool:
    """Return whether asyncio runs in this thread: a blocking wait would stop all coroutines."""
    asyncio = sys.modules.get("asyncio")  # if it is not imported, none can run
    return asyncio is not None and asyncio._get_running_loop() is not None


def snapshot(future: concurrent.futures.Future[Any]) -> tuple[bool, bool, Any, BaseException | None]:
    """Return ``(done, cancelled, result, exception)``, as ``asyncio`` of Python 3.14 needs it."""
    if not future.done():
        return False, False, None, None
    if future.cancelled():
        return True, True, None, None
    error = future.exception()
    return True, False, None if error is not None else future.result(), error


async def arrival(future: concurrent.futures.Future[Any]) -> None:
    """Wait in a coroutine until a future is done. Cancelling the coroutine does not cancel the future."""
    # Imported here, since it costs time and only users of asyncio need it.
    import asyncio

    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()

    def announce(_: object) -> None:
        # The coroutine may have been cancelled and its loop closed long before.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(arrived.set)

    future.add_done_callback(announce)
    await arrived.wait()
