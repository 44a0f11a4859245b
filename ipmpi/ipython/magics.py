"""The magics for the engines of the active client."""

from __future__ import annotations

from typing import Any, Protocol

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand

from .autopx import AutoParallel

NO_ACTIVE_CONTROLLER = """\
Error:  No Controller is activated
Use activate() on a RemoteController object to activate it for magics."""


class Steers(Protocol):
    """What the magics need of a client or view."""

    targets: Any

    def execute(self, lines: str) -> Any:
        """Run source text on engines."""

    def get_result(self, i: int | None = None) -> Any:
        """What a command printed."""


class Pending(Protocol):
    """What the magics need of a result of a client that does not wait."""

    called: bool

    def done(self) -> bool:
        """Whether it is here."""

    def exception(self) -> BaseException | None:
        """What :attr:`r` raises."""

    @property
    def r(self) -> Any:
        """The result."""


@magics_class
class ParallelMagics(Magics):
    """``%px``, ``%%px``, ``%result`` and ``%autopx``.

    Attributes:
        active: the client or view that they steer, set by its ``activate()``; None if there is none.
    """

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self.active: Steers | None = None
        self._pending: list[Pending] = []
        self._autopx = AutoParallel(shell, "get_ipython().magics_manager.registry['ParallelMagics'].execute_cell")

    def deactivate(self) -> None:
        """Forget the client, and run cells here."""
        self._autopx.disable()
        self.active = None

    @no_var_expand
    @line_cell_magic
    def px(self, line: str, cell: str | None = None) -> Any:
        """Run code on the engines: ``%px a = 5``, or ``%%px`` above the lines of a cell.

        The client's ``targets`` and ``block`` count.
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
        """Show what command number N printed on the engines: ``%result N``; without N the last one."""
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
        """Switch on or off that every cell runs on the engines. Magics still run here.

        With ``block=False`` a cell's value is its PendingResult. What it printed is shown with a later cell.
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
        """Run one cell on the engines and print the result: what ``%autopx`` replaces a cell by.

        Returns:
            None; of a client that does not wait its PendingResult, for IPython to show and to keep as ``Out[n]``.
            Its result is printed before the first cell that follows when it is there.
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
                continue  # whoever asked for it has seen it
            error = each.exception()
            print(repr(each.r) if error is None else f"{type(error).__name__}: {error}")
