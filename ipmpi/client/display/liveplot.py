"""A figure that is drawn again and again: in a notebook, in a terminal that shows pictures, or in a file."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from ...errors import ClientError
from .imageprotocols import encoded, protocol_of
from .pictures import FILES

_SHARE: Final = 2
"""A picture takes at most one part in this many of the time, so that neither program nor client are kept busy."""

_FORGET_PICTURES: Final = "\033_Ga=d,d=A\033\\"
"""Of kitty: what was drawn before is freed."""


class EndOfPlot(Exception):
    """There is nothing more to draw; the message says why."""


class Screen(Protocol):
    """Where a figure is shown.

    Attributes:
        is_here: whether it takes the place of all else, so that whoever has asked for it has to wait.
        place: where it is, for a message.
    """

    is_here: bool
    place: str

    def show(self, png: bytes) -> None:
        """Show the figure in place of what was shown before."""

    def close(self) -> None:
        """The last one has been shown."""


class NotebookScreen:
    """The output of a notebook's cell, which is replaced."""

    is_here = False
    place = "in the output of its cell"

    def __init__(self, publish: Callable[..., object]) -> None:
        self._publish = publish
        self._id = secrets.token_hex(8)
        self._is_first = True

    def show(self, png: bytes) -> None:
        """See :class:`Screen`."""
        data = {"image/png": base64.b64encode(png).decode(), "text/plain": "<figure>"}
        transient = {"display_id": self._id}
        self._publish(data=data, metadata={}, transient=transient, update=not self._is_first)
        self._is_first = False

    def close(self) -> None:
        """See :class:`Screen`."""


class FileScreen:
    """A file, which is replaced at once: no reader sees half of a picture."""

    is_here = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self.place = f"in {path}"

    def show(self, png: bytes) -> None:
        """See :class:`Screen`."""
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        new.write_bytes(png)
        new.replace(self._path)

    def close(self) -> None:
        """See :class:`Screen`."""


class TerminalScreen:
    """A terminal that shows pictures; its contents come back, with the last picture below."""

    is_here = True
    place = "in the terminal"

    def __init__(self, write: Callable[[str], object], protocol: Any) -> None:
        self._write = write
        self._protocol = protocol
        self._last: str | None = None

    def show(self, png: bytes) -> None:
        """See :class:`Screen`."""
        text = encoded("image/png", png, self._protocol)
        if text is None:
            raise ClientError(f"the terminal's {self._protocol} cannot show this picture: give file=")
        begin = "\033[?1049h" if self._last is None else ""
        forget = _FORGET_PICTURES if self._protocol == "kitty" else ""
        self._write(f"{begin}\033[H\033[2J{forget}{text}\r\nCtrl-C ends this, and not the program\r\n")
        self._last = text

    def close(self) -> None:
        """See :class:`Screen`."""
        if self._last is not None:
            self._write(f"\033[?1049l{self._last}\n")


def screen_here(file: str | None) -> Screen:
    """Return what shows figures where the user is.

    Args:
        file: the path of a file to write them to instead. Without it, they are written to a new one, if this is
            neither a notebook nor a terminal that shows pictures.
    """
    if file is not None:
        return FileScreen(Path(file))
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is not None and hasattr(shell, "kernel"):
        return NotebookScreen(shell.display_pub.publish)
    protocol = protocol_of(os.environ) if sys.stdout.isatty() else "file"
    if protocol != "file":

        def write(text: str) -> None:
            sys.stdout.write(text)
            sys.stdout.flush()

        return TerminalScreen(write, protocol)
    return FileScreen(FILES.write(b"", "png"))


class LivePlot:
    """A figure that is drawn again and again, until :meth:`stop`, or until there is nothing more to draw.

    Thread-safety: all methods may be called from any thread.

    Args:
        draw: draws into the Axes that it gets, which are empty; raises :class:`EndOfPlot` if there is no more.
        screen: where the figure is shown.
        every: seconds from one picture to the next, if drawing takes less than half of that.

    Attributes:
        count: how many pictures were drawn.
        ended: why no more will be drawn; None as long as there will.
        figure: the matplotlib.figure.Figure.

    Raises:
        ClientError: there is no matplotlib here.
    """

    def __init__(self, draw: Callable[[Any], object], screen: Screen, every: float) -> None:
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ClientError(f"plot() draws with matplotlib: pip install matplotlib ({error})") from None
        self.figure = Figure(layout="constrained")
        self._axes = self.figure.add_subplot()
        self._draw = draw
        self._screen = screen
        self._every = every
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.count = 0
        self.ended: str | None = None

    def __repr__(self) -> str:
        state = "is drawn again and again" if self.ended is None else f"has ended: {self.ended}"
        return f"<LivePlot {self._screen.place}: {self.count} pictures, {state}>"

    def begin(self) -> None:
        """Show the first picture, and begin with the others; return at the end if the screen has no room for more.

        Raises:
            Exception: what drawing the first picture raises.
        """
        self._show()
        if self._screen.is_here:
            try:
                self._go_on()
            except KeyboardInterrupt:
                self._end("it was stopped")
            return
        self._thread = threading.Thread(target=self._go_on, name="ipmpi-plot", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Draw no more; returns when the picture that is being drawn is there."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended; return whether it has, after ``timeout`` seconds at most."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self.ended is not None

    def _show(self) -> None:
        self._axes.clear()
        self._draw(self._axes)
        data = io.BytesIO()
        self.figure.savefig(data, format="png")
        self._screen.show(data.getvalue())
        self.count += 1

    def _go_on(self) -> None:
        taken = 0.0
        while not self._stop.wait(max(self._every - taken, (_SHARE - 1) * taken)):
            began = time.monotonic()
            try:
                self._show()
            except EndOfPlot as error:
                self._end(str(error))
                return
            except Exception as error:
                self._end(f"{type(error).__name__}: {error}")
                return
            taken = time.monotonic() - began
        self._end("it was stopped")

    def _end(self, why: str) -> None:
        self.ended = why
        with contextlib.suppress(OSError, ValueError):  # a terminal that is gone
            self._screen.close()
