"""What the engines print and display while they run a command."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from ...ids import Ids
from ...protocol import messages as m, operations
from ..display.blocks import Block as Block, Output
from ..display.portions import outputs


class CommandOutput:
    """The output of one command, in the order in which it arrived.

    Thread-safety: blocks are added in the session's thread; all other methods may be called from any thread.

    Args:
        is_journalled: whether the controller has a journal, so that another one may tell again what has arrived.

    Attributes:
        size: characters of text that have arrived so far.
    """

    def __init__(self, is_journalled: bool = False) -> None:
        self._is_journalled = is_journalled
        self._lock = threading.Lock()
        self._blocks: list[Block] = []
        self._came: list[int] = []
        """What identifies each message's block that has arrived, if it may come again."""
        self._known: Counter[int] = Counter()
        """Those of which a second one is not shown."""
        self.size = 0
        self._listeners: list[Callable[[Sequence[Block]], object]] = []

    @property
    def blocks(self) -> list[Block]:
        """All that has arrived so far."""
        with self._lock:
            return list(self._blocks)

    def add(self, blocks: Sequence[m.OutputBlock]) -> None:
        """More has arrived. What cannot be decoded is left out."""
        if self._is_journalled:
            blocks = [block for block in blocks if self._is_new(block)]
        came = [made for block in blocks if (made := _block(block)) is not None]
        with self._lock:
            self._blocks += came
            self.size += sum(len(block.text) for block in came)
            listeners = list(self._listeners)
        for listener in listeners:
            listener(came)

    def may_come_again(self) -> None:
        """Another controller may tell again what is here; only in the session's thread, like :meth:`add`."""
        self._known = Counter(self._came)

    def _is_new(self, block: m.OutputBlock) -> bool:
        name = hash((block.kind, block.first, Ids.of(block.engines).packed(), block.data))
        if self._known[name] > 0:
            self._known[name] -= 1
            return False
        self._came.append(name)
        return True

    def listen(self, listener: Callable[[Sequence[Block]], object]) -> None:
        """Call ``listener`` with what is there now, and with whatever arrives later, then in the session's thread.

        It must return quickly and must not raise.
        """
        with self._lock:
            there = list(self._blocks)
            self._listeners.append(listener)
            # With the lock, so that nothing that comes meanwhile is passed on before what was there.
            listener(there)

    def by_engine(self) -> dict[int, Output]:
        """What each engine has printed and displayed so far; without those that have printed nothing."""
        blocks = self.blocks
        if not blocks:  # as for most commands
            return {}
        return {engine: output for engines, output in outputs(blocks) for engine in engines}


def _block(block: m.OutputBlock) -> Block | None:
    engines = tuple(block.engines)
    if block.kind != m.DISPLAY:
        return Block(block.kind, engines, block.data.decode(errors="backslashreplace"))
    try:
        return Block(block.kind, engines, formats=operations.decode_display(block.data).formats)
    except msgspec.DecodeError:
        return None
