"""Watching a value of a program that is steered: an iterator, a table, a live plot."""

from __future__ import annotations

import importlib
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple

from ...errors import ClientError, EngineLost
from ...protocol import messages, operations
from ...protocol.steering import MOST_STEPS, PUBLISHED_NAME, REDUCTIONS, Watched
from ..display.pyplot import axes_for
from ..session import given
from ..session.presence import Presence
from ..session.session import Session

KEPT: Final = 20_000
"""Samples that are kept; of more, every second old one is dropped."""
_BARS: Final = "▁▂▃▄▅▆▇█"
_WIDTH: Final = 40
_REDRAW: Final = 0.25
"""Seconds between two pictures of a live plot."""


def checked(name: str, every: int, reduce: str | None) -> operations.Watch:
    """Return what is to be watched.

    Raises:
        TypeError, ValueError: an argument cannot be used.
    """
    if not given.text(name, "name, of a published value,", PUBLISHED_NAME):
        raise ValueError("name, of a published value, must not be empty")
    count = given.whole_number(every, "every, a number of steps,", 1, MOST_STEPS)
    if reduce is not None and reduce not in REDUCTIONS:
        raise ValueError(
            f"reduce must be one of {', '.join(map(repr, REDUCTIONS))} or None: {given.shown(reduce)}"
        )
    return operations.Watch(name, count, reduce or "")


def open_watch(session: Session, name: str, engines: Sequence[int]) -> Watch:
    """Return a watch of a program with these ranks that the program has not been told of yet."""
    presence, number = session.presence, random.getrandbits(62)

    def stop() -> None:
        presence.unwatch(number)
        if session.failure is None:
            session.request(lambda i: messages.Unsubscribe(i, number))

    presence.watch(number)
    return Watch(presence, number, engines, name, stop)


class Sample(NamedTuple):
    """A value, and the number of the step after which the program had it."""

    step: int
    value: float


class Watch(Iterator[Sample]):
    """What a program tells of one value while it runs; made by :meth:`Simulation.watch`.

    ``for step, value in watch`` waits for each, and ends with the program. All that has come is in
    :attr:`samples`. End it by :meth:`stop`, or use it in a with-statement.

    Thread-safety: one thread at a time.

    Attributes:
        name: the name of the value.
        number: that of the watch, chosen by chance.
        samples: what has come so far; if it is much, older ones are thinned out.
    """

    def __init__(
        self, presence: Presence, number: int, engines: Sequence[int], name: str, stop: Callable[[], None]
    ) -> None:
        self._presence = presence
        self.number = number
        self._engines = engines
        self._stop = stop
        self._next = 0
        self._has_ended = False
        self.name = name
        self.samples: list[Sample] = []

    def wait_until_begun(self) -> None:
        """Wait for the first word of the program.

        Raises:
            ClientError: it cannot begin this watch; the message says why.
            EngineLost: it has ended.
        """
        if not self._take(None):
            raise EngineLost(f"the program has ended before it could begin to tell {self.name}")

    def __next__(self) -> Sample:
        while self._next >= len(self.samples):
            if not self._take(None):
                raise StopIteration
        self._next += 1
        return self.samples[self._next - 1]

    def _take(self, timeout: float | None) -> bool:
        """Wait for samples, and keep them; return False if no more will come."""
        found = None if self._has_ended else self._presence.next_watched(self.number, self._engines, timeout)
        if found is None:
            self._has_ended = True
            return False
        for message in found:
            self._add(message)
        return True

    def _add(self, message: Watched) -> None:
        if message.problem:
            self._has_ended = True
            raise ClientError(message.problem)
        self.samples += map(Sample, message.steps, message.values)
        if len(self.samples) > KEPT:
            old = self.samples[: KEPT // 2]
            self.samples[: KEPT // 2] = old[::2]
            self._next = max(0, self._next - (len(old) - len(old[::2])))

    def refresh(self) -> Watch:
        """Take what has come, without waiting; return this object."""
        self._take(0)
        return self

    def frame(self) -> Any:
        """Return what has come so far as a pandas DataFrame, by step.

        Raises:
            ClientError: there is no pandas here.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise ClientError(f"frame() makes a DataFrame of pandas: pip install pandas ({error})") from None
        self.refresh()
        steps, values = [each.step for each in self.samples], [each.value for each in self.samples]
        return pandas.DataFrame({self.name: values}, index=pandas.Index(steps, name="step"))

    def plot(self, ax: Any = None) -> Any:
        """Draw what has come so far with matplotlib; return the Axes."""
        self.refresh()
        axes = axes_for(ax)
        axes.plot([each.step for each in self.samples], [each.value for each in self.samples])
        axes.set_xlabel("step")
        axes.set_title(self.name)
        return axes

    def live(self, seconds: float | None = None) -> None:
        """Show a picture that follows the program, until it ends, or for so many seconds; Ctrl-C ends it as well.

        In a notebook it is a figure of matplotlib, elsewhere a line of the terminal.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        screen = _screen()
        try:
            more = True
            while more and (deadline is None or time.monotonic() < deadline):
                more = self._take(_REDRAW)
                screen(self)
                time.sleep(0 if self._has_ended else _REDRAW / 5)
        except KeyboardInterrupt:
            pass
        finally:
            screen(None)

    def sparkline(self, width: int = _WIDTH) -> str:
        """Return the last values as bars of text."""
        values = [each.value for each in self.samples[-width:]]
        finite = [value for value in values if value - value == 0]
        if not finite:
            return ""
        low, high = min(finite), max(finite)
        scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
        return "".join(_BARS[round((v - low) * scale)] if v - v == 0 else "?" for v in values)

    def __repr__(self) -> str:
        self.refresh()
        state = ", ended" if self._has_ended else ""
        if not self.samples:
            return f"<watch of {self.name}: nothing yet{state}>"
        last = self.samples[-1]
        return f"<watch of {self.name}: {last.value:.6g} after step {last.step:,}{state} {self.sparkline()}>"

    def stop(self) -> None:
        """End it: the program tells the value no more."""
        self._has_ended = True
        self._stop()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _screen() -> Callable[[Watch | None], None]:
    """Return what shows the state of a watch, in place of the one before; None ends it."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is not None and getattr(shell, "kernel", None) is not None:
        return _NotebookScreen().show
    return _TerminalScreen().show


class _TerminalScreen:
    def __init__(self) -> None:
        self._shown = ""

    def show(self, watch: Watch | None) -> None:
        stream = sys.stdout
        is_terminal = stream.isatty()
        if watch is None:
            stream.write("\n" * bool(self._shown and is_terminal))
        elif watch.samples:
            last = watch.samples[-1]
            line = f"{watch.name} {watch.sparkline()} {last.value:.6g} after step {last.step:,}"
            if line == self._shown:
                return
            stream.write(f"\r\033[K{line}" if is_terminal else f"{line}\n")
            self._shown = line
        stream.flush()


class _NotebookScreen:
    """One figure that is replaced."""

    def __init__(self) -> None:
        axes_for(None)  # says what to do if there is no matplotlib
        import matplotlib.pyplot as plt
        from IPython.display import display

        plt.close()
        self._figure, self._axes = plt.subplots()
        plt.close(self._figure)  # else the cell shows it once more at its end
        self._handle: Any = display(self._figure, display_id=True)  # type: ignore[no-untyped-call]
        self._count = -1

    def show(self, watch: Watch | None) -> None:
        if watch is None or self._count == (count := len(watch.samples)):
            return
        self._count = count
        self._axes.clear()
        watch.plot(self._axes)
        self._handle.update(self._figure)
