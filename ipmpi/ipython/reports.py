"""Texts of magics that report something."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from IPython.core.error import UsageError

from ..client.display.blocks import STDOUT, Block
from ..client.display.escapes import safe
from ..client.display.live import LiveView
from ..client.display.pictures import pictures_here
from ..client.display.render import Renderer
from ..errors import CompositeError, KernelError, PeerError, text_of
from .pxoptions import PxOptions
from .pxscreen import colours_of, width_of, write


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """Let IPython show an error of ipmpi itself without its frames, which tell a user of magics nothing."""
    try:
        yield
    except CompositeError:
        raise  # it shows the user's frames
    except KernelError as error:
        lines = [f"{type(error).__name__}: {text_of(error)}"]
        error._render_traceback_ = lambda: lines  # type: ignore[attr-defined]
        raise


def how_to_activate(text: str, names: Mapping[str, Any]) -> str:
    """Return what to type if no client is active: ``text``, and an example with the user's own names."""
    clients = [
        name
        for name, value in names.items()
        if not name.startswith("_") and callable(getattr(type(value), "activate", None))
    ]
    if clients:
        return f"{text}\nType: {clients[-1]}.activate()"
    return f"{text}\nType: from ipmpi import client; mec = client.MultiEngineClient(); mec.activate()"


def settings(client: Any, defaults: PxOptions) -> str:
    """Return the settings of ``%pxconfig`` as text."""
    shown = {
        "targets": client.targets,
        "block": client.block,
        "stream": defaults.stream,
        "verbose": defaults.verbose,
        "fold": defaults.fold,
        "ranks": defaults.ranks or "all",
        "progress-after": "as the client's progress_after" if defaults.progress_after is None else
        defaults.progress_after,
        "Ctrl-C": defaults.on_interrupt or "as the client's on_interrupt",
    }  # fmt: skip
    return "\n".join(f"{name + ':':16}{value}" for name, value in shown.items())


def tracebacks(error: CompositeError, wanted: Sequence[int] | None, colours: bool) -> str:
    """Return the engines' whole tracebacks, equal ones once.

    Args:
        error: that of the engines.
        wanted: ids of engines; None for all.
        colours: whether to use ANSI colours.

    Raises:
        UsageError: one of ``wanted`` has not failed.
    """
    try:
        return error.render(wanted, all=True, colours=colours) + "\n"
    except IndexError as wrong:
        raise UsageError(str(wrong)) from None


def first_cause(error: CompositeError) -> int | None:
    """Return the first engine that has failed by itself, and not because of another one; None if there is none."""
    failed = [(value, getattr(value, "_ipython_engine_info", {}).get("engineid")) for _, value, _ in error.elist]
    known = [(value, engine) for value, engine in failed if isinstance(engine, int)]
    own = [engine for value, engine in known if not isinstance(value, PeerError)]
    return min([*own, *(engine for _, engine in known if not own)], default=None)


def log(recent: Sequence[Any], count: int) -> str:
    """Return what engines have printed for the last ``count`` commands that printed something."""
    printed = [each for each in recent if each.output.blocks][-count:] if count else []
    if not printed:
        return "nothing was printed for this client lately\n"
    renderer = Renderer(group_outputs="order")
    return "".join(_heading(each) + renderer.render(each.output.blocks) for each in printed)


def replay(recent: Sequence[Any], shell: Any) -> None:
    """Show what engines have printed and displayed, figures included, under the label of each command."""
    for each in recent:
        write(_heading(each))
        colours, columns = colours_of(shell), width_of(shell)
        pictures = pictures_here(Renderer("exact", colours, columns))
        view = LiveView(write, colours=colours, is_terminal=False, width=columns, display=pictures.live)
        view.feed(each.output.blocks, time.monotonic())
        view.finish(time.monotonic())
    if not recent:
        write("nothing was printed since then\n")


def _heading(recent: Any) -> str:
    began = time.localtime(recent.began)
    is_today = began[:3] == time.localtime()[:3]
    when = time.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S", began)
    return f"--- {when} {safe(recent.label)}\n"


def between(texts: Mapping[int, str]) -> str:
    """Return what engines have printed while they ran no command, by their ids."""
    blocks = [Block(STDOUT, (engine,), text) for engine, text in texts.items() if text]
    return f"--- while no command ran\n{Renderer().render(blocks)}" if blocks else ""
