"""IPython magics that run code on the engines of the active client."""

from __future__ import annotations

from typing import Any, Protocol

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand

from .autopx import AutoParallel

NO_ACTIVE_CONTROLLER = """\
Error:  No Controller is activated
Use activate() on a RemoteController object to activate it for magics."""


class Steers(Protocol):
    """The part of a client or view that the magics use."""

    targets: Any

    def execute(self, lines: str) -> Any:
        """Run source code on engines."""

    def get_result(self, i: int | None = None) -> Any:
        """Return the output of a command."""


class Pending(Protocol):
    """The part of a :class:`PendingResult` that the magics use."""

    called: bool

    def done(self) -> bool:
        """Return whether it has arrived."""

    def exception(self) -> BaseException | None:
        """Return the exception that :attr:`r` raises."""

    @property
    def r(self) -> Any:
        """The result."""


@magics_class
class ParallelMagics(Magics):
    """The magics ``%px``, ``%%px``, ``%result`` and ``%autopx``.

    They use the ``targets`` and ``block`` of the active client. Without one, they print how to activate it. They
    are for use in IPython's main thread.

    Attributes:
        active: the client or view whose ``activate()`` was called last; None if there is none.
    """

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self.active: Steers | None = None
        self._pending: list[Pending] = []
        self._autopx = AutoParallel(shell, "get_ipython().magics_manager.registry['ParallelMagics'].execute_cell")

    def deactivate(self) -> None:
        """Drop the active client, and run cells locally."""
        self._autopx.disable()
        self.active = None

    @no_var_expand
    @line_cell_magic
    def px(self, line: str, cell: str | None = None) -> Any:
        """Run code on the engines: ``%px a = 5``, or ``%%px`` as the first line of a cell.

        Returns:
            A :class:`ResultList`; if the client's ``block`` is False, a :class:`PendingResult` of it.

        Raises:
            CompositeError: the code raised on at least one engine.
            UsageError: ``%%px`` is followed by code on the same line.
        """
        if self.active is None:
            print(NO_ACTIVE_CONTROLLER)
            return None
        if cell is not None and line.strip():
            raise UsageError("%%px stands alone on its line, with the code for the engines below")
        print(f"Parallel execution on engines: {self.active.targets}")
        return self.active.execute(line if cell is None else cell)

    @line_magic
    def result(self, line: str) -> Any:
        """Show the output of command number N: ``%result N``; without N, of the last command that succeeded.

        Raises:
            UsageError: N is not a number.
        """
        if self.active is None:
            print(NO_ACTIVE_CONTROLLER)
            return None
        number = line.strip()
        try:
            return self.active.get_result(int(number) if number else None)
        except ValueError:
            raise UsageError(f"%result takes the number of a command, as in %result 3, not {number!r}") from None

    @line_magic
    def autopx(self, line: str) -> None:  # noqa: ARG002 - what IPython calls
        """Toggle whether cells run on the engines. Magics, shell commands and help still run locally.

        If the client's ``block`` is False, the value of a cell is a :class:`PendingResult`, and its output is
        printed before the next cell that runs after it has arrived.
        """
        if self._autopx.enabled:
            self._show_what_came()
            self._autopx.disable()
            print("Auto Parallel Disabled")
        elif self.active is None:
            print(NO_ACTIVE_CONTROLLER)
        else:
            self._autopx.enable()
            print("Auto Parallel Enabled\nType %autopx to disable")

    def execute_cell(self, cell: str) -> Any:
        """Run one cell on the engines and print its output; ``%autopx`` replaces cells by calls of this.

        Returns:
            None; if the client's ``block`` is False, a :class:`PendingResult`, which IPython displays and keeps as
            ``Out[n]``. Its output is printed before the next cell that runs after it has arrived.
        """
        if self.active is None:
            print(NO_ACTIVE_CONTROLLER)
            return None
        self._show_what_came()
        result = self.active.execute(cell)
        if isinstance(result, list):
            print(repr(result))
            return None
        self._pending.append(result)
        return result

    def _show_what_came(self) -> None:
        came = [each for each in self._pending if each.done()]
        self._pending = [each for each in self._pending if not each.done()]
        for each in came:
            if each.called:
                continue  # its output was seen when it was retrieved
            error = each.exception()
            print(repr(each.r) if error is None else f"{type(error).__name__}: {error}")
