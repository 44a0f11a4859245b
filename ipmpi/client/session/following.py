"""Output that is passed on while a command runs: to a stream, folded, or to a callback, as it comes."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ...errors import text_of
from ..display.blocks import Block
from ..display.live import LiveView
from ..display.pictures import pictures_here
from ..display.render import FOLDS, Fold, choice
from ..display.screens import has_colours, is_terminal, renderer_here, width
from .commandoutput import CommandOutput
from .notices import say
from .results import PendingResult
from .waiting import T

OnOutput = Callable[[Block], object]


def live_view(stream: Any, fold: Fold) -> LiveView:
    """What shows output on a stream while it comes.

    Raises:
        TypeError: the stream has no ``write``.
        ValueError: ``fold`` is none of the possible words.
    """
    renderer = renderer_here(stream, fold)

    def write(text: str) -> None:
        stream.write(text)
        flush = getattr(stream, "flush", None)
        if flush is not None:
            flush()

    return LiveView(
        write,
        fold=fold,
        colours=has_colours(stream),
        is_terminal=is_terminal(stream),
        width=width(),
        display=pictures_here(renderer, stream).live,
    )


class Follower:
    """Shows the output of a call in a thread of its own, until :meth:`end` or :meth:`stop`.

    What fails in that thread, such as a stream that was closed, ends the showing and nothing else.
    """

    def __init__(self, view: LiveView, outputs: Sequence[CommandOutput]) -> None:
        self._view = view
        self._came: queue.SimpleQueue[Sequence[Block] | None] = queue.SimpleQueue()
        for output in outputs:
            output.listen(self._came.put)
        self._thread = threading.Thread(target=self._run, name="ipmpi-output", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Show no more after what has come."""
        self._came.put(None)

    def end(self) -> None:
        """The call is over: wait until all of its output is shown."""
        self.stop()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._follow()
        except Exception as error:
            say(f"the output of a command is no longer shown: {type(error).__name__}: {text_of(error)}")

    def _follow(self) -> None:
        view = self._view
        while True:
            due = view.due
            try:
                blocks = self._came.get(timeout=None if due is None else max(due - time.monotonic(), 0))
            except queue.Empty:
                view.tick(time.monotonic())
                continue
            if blocks is None:
                view.finish(time.monotonic())
                return
            view.feed(blocks, time.monotonic())


def call_with_each(outputs: Sequence[CommandOutput], on_output: OnOutput) -> None:
    """Call ``on_output`` with each block, in the session's thread; no more after it has raised, which is told."""
    is_over = False

    def listen(blocks: Sequence[Block]) -> None:
        nonlocal is_over
        for block in blocks:
            if is_over:
                return
            try:
                on_output(block)
            except BaseException as error:  # sys.exit() there must not end the thread that receives all replies
                is_over = True
                say(f"on_output raised {type(error).__name__}: {text_of(error)}. It is not called again")

    for output in outputs:
        output.listen(listen)


class Live(NamedTuple):
    """What a call does with output while it runs; see :meth:`EngineView.execute`."""

    stream: Any = None
    on_output: OnOutput | None = None
    fold: Fold = "exact"

    def view(self) -> LiveView | None:
        """What shows it on :attr:`stream`; None for no stream.

        Raises:
            TypeError: ``stream`` has no ``write``, or ``on_output`` cannot be called.
            ValueError: ``fold`` is none of the possible words.
        """
        if self.on_output is not None and not callable(self.on_output):
            raise TypeError(f"on_output must be a function of one block of output, not {self.on_output!r}")
        choice(self.fold, "fold", FOLDS)
        return None if self.stream is None else live_view(self.stream, self.fold)

    def follow(self, pending: PendingResult[T], view: LiveView | None, waits: bool) -> PendingResult[T] | T:
        """Pass on the output of a call that was made; return its result if the call waits."""
        if self.on_output is not None:
            call_with_each(pending.outputs, self.on_output)
        follower = None if view is None else Follower(view, pending.outputs)
        if not waits:
            if follower is not None:
                pending.add_done_callback(lambda _: follower.stop())
            return pending
        try:
            pending.wait()
        except BaseException:
            if follower is not None:
                follower.stop()
            raise
        if follower is not None:
            follower.end()
        return pending.r
