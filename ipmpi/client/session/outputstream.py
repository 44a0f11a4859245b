"""Output of a call as it comes, for loops."""

from __future__ import annotations

import concurrent.futures
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence

from ..display.blocks import Block
from .awaiting import arrival
from .commandoutput import CommandOutput
from .waiting import check_waiting


class OutputStream(Iterator[Block], AsyncIterator[Block]):
    """Iterates over the blocks that come while a call runs, from its beginning until it has ended.

    ``for block in stream`` waits for each; ``async for block in stream`` lets other coroutines run meanwhile.
    Failures on engines are not raised here, but when the result is retrieved.

    Thread-safety: one loop at a time.
    """

    def __init__(self, future: concurrent.futures.Future[object], outputs: Sequence[CommandOutput]) -> None:
        self._blocks: deque[Block] = deque()
        self._has_ended = False
        self._lock = threading.Lock()
        self._news: concurrent.futures.Future[None] = concurrent.futures.Future()
        for output in outputs:
            output.listen(self._came)
        future.add_done_callback(lambda _: self._came((), is_end=True))

    def _came(self, blocks: Sequence[Block], is_end: bool = False) -> None:
        with self._lock:
            self._blocks.extend(blocks)
            self._has_ended = self._has_ended or is_end
            news = self._news
            if (blocks or is_end) and not news.done():
                news.set_result(None)

    def _next(self) -> Block | concurrent.futures.Future[None] | None:
        """A block, or a future of news, or None at the end."""
        with self._lock:
            if self._blocks:
                return self._blocks.popleft()
            if self._has_ended:
                return None
            if self._news.done():
                self._news = concurrent.futures.Future()
            return self._news

    def __next__(self) -> Block:
        while not isinstance(found := self._next(), Block):
            if found is None:
                raise StopIteration
            check_waiting()
            found.result()
        return found

    async def __anext__(self) -> Block:
        while not isinstance(found := self._next(), Block):
            if found is None:
                raise StopAsyncIteration
            await arrival(found)
        return found
