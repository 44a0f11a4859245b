"""What user code displays while a command runs: ``display(value)``, and figures of matplotlib.

Neither IPython nor matplotlib is needed or imported here. Where user code imports them, ``plt.show()`` and
``IPython.display.display`` come here as well (:mod:`ipmpi.engine.session.importhooks`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from ipmpi import limits
from ipmpi.engine.session import formats
from ipmpi.engine.session.formats import PLAIN, bundled, formats_of, shown
from ipmpi.protocol.operations import Display

Publish = Callable[[Display], None]
"""Called with what is displayed while a command runs, in the thread of user code that displays it.

What this process has printed before is flushed then, and the formats have at most ``limits.DISPLAY`` bytes.
"""

BACKENDS: Final = ("module://ipmpi.engine.session.figures", "inline", "module://matplotlib_inline.backend_inline")
"""Of matplotlib, whose figures are shown when a command ends; the others are what ``%matplotlib inline`` sets."""


class DisplayHandle:
    """What ``display(value, display_id=True)`` returns."""

    def __init__(self, display: Displays, display_id: str) -> None:
        self.display_id = display_id
        self._display = display

    def display(self, obj: object, **options: Any) -> None:
        """Display a value."""
        self._display(obj, **options)

    def update(self, obj: object, **options: Any) -> None:
        """Display a value; what was displayed before stays as well, unlike in a notebook."""
        self._display(obj, **options)


class Displays:
    """The name ``display`` of an engine: shows values at the client, in all formats that they have.

    Outside of commands (in tasks, threads that go on, forked children) it prints their plain text.

    Attributes:
        close_figures: whether figures of ``matplotlib.pyplot`` that are still open when a command ends are shown
            and closed, as in notebooks. If it is False, only ``plt.show()`` shows them. Users set it.
    """

    def __init__(self) -> None:
        self.close_figures = True
        self._publish: Publish = _nowhere
        self._shown_figures: list[Any] = []
        self._left = 0
        self._is_running = False

    def __repr__(self) -> str:
        return "display(*values): show them at the client, in all formats that they have"

    def __reduce__(self) -> tuple[Callable[[], Displays], tuple[()]]:
        return current, ()

    def __call__(
        self,
        *objs: object,
        include: Collection[str] | None = None,
        exclude: Collection[str] | None = None,
        metadata: Mapping[str, object] | None = None,
        display_id: str | bool | None = None,
        raw: bool = False,
        **_others: Any,
    ) -> DisplayHandle | None:
        """Show values, as ``IPython.display.display`` does, which has the same arguments.

        Args:
            *objs: the values.
            include: only these MIME types.
            exclude: none of these.
            metadata: about formats, by MIME type.
            display_id: returns a handle if it is given.
            raw: the values are dictionaries of formats by MIME type.
            **_others: of IPython's; they mean nothing here.

        Raises:
            Exception: what the ``__repr__`` of a value raises.
        """
        for value in objs:
            if raw:
                self.publish(bundled(value if isinstance(value, Mapping) else {}, metadata))
                continue
            own = formats.method_of(value, "_ipython_display_")
            if own is not None:
                own()
                continue
            self.publish(shown(value, self._formats(value, include, exclude, metadata)))
        if not display_id:
            return None
        return DisplayHandle(self, "" if display_id is True else display_id)

    def connect(self, publish: Publish) -> None:
        """Call ``publish`` from now on with what is displayed."""
        self._publish = publish

    # --- for the console ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """A command begins, in this thread."""
        global _current
        _current = self
        self._is_running = True
        self._left = limits.DISPLAYS

    def end(self) -> None:
        """It has ended."""
        self._is_running = False
        self._shown_figures.clear()

    def forked(self) -> None:
        """This is a forked child: nobody would take what it displays."""
        self._is_running = False

    def last_value(self, value: object) -> Display | None:
        """The formats of the last value of a command, which travel with its answer; None if it is just text."""
        found = self._formats(value)
        return shown(value, found) if found is not None and formats.is_incomplete(found) else found

    def show_left_open(self) -> None:
        """The command ends: show the figures that are still open, and close them.

        Raises:
            Exception: one could not be drawn.
        """
        helpers = sys.modules.get("matplotlib._pylab_helpers")
        if helpers is None or not self.close_figures or not helpers.Gcf.figs:
            return
        backend = dict.get(sys.modules["matplotlib"].rcParams, "backend")  # asking it would choose one
        if isinstance(backend, str) and backend in BACKENDS:
            self.show_figures(helpers.Gcf.get_all_fig_managers())

    # --- for figures and IPython ---------------------------------------------------------------------------

    def show_figures(self, managers: Collection[Any]) -> None:
        """Show figures of ``matplotlib.pyplot`` by their numbers, and close them.

        Those that were shown in this command and have not changed since are only closed.
        """
        try:
            for manager in sorted(managers, key=lambda each: each.num):
                figure = manager.canvas.figure
                if figure.stale or not any(each is figure for each in self._shown_figures):
                    image = formats.png_of(figure)
                    self.publish(shown(figure, bundled({formats.PNG: image})))
        finally:
            pyplot = sys.modules["matplotlib.pyplot"]
            for manager in managers:
                pyplot.close(manager.canvas.figure)

    def publish(self, display: Display | None) -> None:
        """Show a bundle of formats, as long as this command has not displayed too much."""
        if display is None:
            return
        if not self._is_running:
            print(display.text.get(PLAIN, ", ".join(display.formats)))
            return
        before, self._left = self._left, self._left - formats.size(display)
        if self._left < 0:
            if before >= 0:
                most = limits.DISPLAYS // limits.MIB
                print(f"ipmpi: this command has displayed {most} MiB; it can show no more", file=sys.stderr)
            return
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        self._publish(display)

    def _formats(
        self,
        value: object,
        include: Collection[str] | None = None,
        exclude: Collection[str] | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> Display | None:
        found = formats_of(value, include, exclude, metadata)
        if found is not None and formats.is_figure(value):
            self._shown_figures.append(value)
        return found


def _nowhere(_display: Display) -> None:
    """Before :meth:`Displays.connect`."""


def current() -> Displays:
    """That of the command that runs in this process, or ran last."""
    return _current


_current = Displays()
