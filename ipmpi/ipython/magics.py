"""IPython magics that run code on the engines of the active client."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand

from ..client.session.results import PendingResult
from ..errors import CompositeError, WaitInterrupted
from ..ranges import ranges
from . import reports
from .autopx import AutoParallel
from .completion import PxCompletion
from .pxoptions import PX, PXCONFIG, PXRESULT, PxOptions, engines, parse, since_option, split_line, where_options
from .pxprofile import PxProfile
from .pxrun import PxRun, ends_with_semicolon
from .pxscreen import colours_of

NO_ACTIVE_CONTROLLER = """\
Error:  No Controller is activated
Use activate() on a RemoteController object to activate it for magics."""

_SHOWN_IDS: Final = 10
_MAGIC: Final = re.compile(r"\s*(?P<marks>%%?)(?P<name>\w+)")


class Steers(Protocol):
    """The part of a client or view that the magics use."""

    targets: Any
    block: bool

    def execute(self, lines: str, targets: Any = None, *, block: bool) -> Any:
        """Run source code on engines."""

    def get_result(self, i: int | str | None = None) -> Any:
        """Return the output of a command."""

    def complete(self, text: str) -> list[str]:
        """Return what the last word can become."""

    def kill(self, *, targets: Any = None, block: bool | None = None) -> Any:
        """End engines."""

    def debug(self, engine: int | None = None) -> None:
        """Open a debugger on an engine."""

    def debuggers_wait(self) -> bool:
        """Return whether debuggers wait in commands of the client."""

    def recent_outputs(self, since: Any = None) -> Sequence[Any]:
        """Return what was printed lately, or since a moment."""

    def log(self) -> Mapping[int, str]:
        """Return what was printed while no command ran."""

    def where(self, targets: Any = None, *, native: bool = False) -> Any:
        """Say where engines are."""


@magics_class
class ParallelMagics(Magics):
    """The magics that run code on engines: ``%px``, ``%%px``, ``%autopx`` and those that show what came of it.

    They use the ``targets`` and ``block`` of the active client. Without one, they say how to activate it. They are
    for use in IPython's main thread.

    Attributes:
        active: the client or view whose ``activate()`` was called last; None if there is none.
        last: the result of the last command that they ran.
        defaults: the options of ``%pxconfig``.
    """

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self._shell = shell
        self.active: Steers | None = None
        self.last: PendingResult[Any] | None = None
        self.defaults = PxOptions(stream=True, verbose=True, fold="exact", group_outputs="type")
        self._pending: list[PendingResult[Any]] = []
        self._autopx = AutoParallel(shell, "get_ipython().magics_manager.registry['ParallelMagics'].execute_cell")
        self._completion = PxCompletion(lambda: self.active, lambda: self._autopx.enabled)

    def load(self) -> None:
        """Complete code for engines from now on."""
        self._completion.install(self._shell)

    def deactivate(self) -> None:
        """Drop the active client, and run cells locally."""
        self._completion.remove(self._shell)
        self._autopx.disable()
        self.active = None

    # --- Running code -----------------------------------------------------------------------------------------

    @no_var_expand
    @line_cell_magic
    def px(self, line: str, cell: str | None = None) -> Any:
        """Run code on the engines: ``%px a = 5``, or ``%%px`` as the first line of a cell.

        ``%pxconfig?`` shows the options, which may precede the code of ``%px``, too.

        What the engines print is shown while it comes, equal output once, and then the values of last expressions,
        unless the code ends with a semicolon. With ``--profile``, a table of where they have spent their time
        follows, which is kept as ``_profile``; ``_profile.save('heat.json')`` writes it for speedscope.
        Ctrl-C interrupts the engines that run this cell; once more leaves it running, for ``%pxresult``.

        Returns:
            None. ``_`` is the :class:`ResultList`. If the client's ``block`` is False, or with ``--noblock``, a
            :class:`PendingResult`.

        Raises:
            CompositeError: the code raised on at least one engine.
            WaitInterrupted: Ctrl-C ended the wait, or all engines finished in spite of it.
            UsageError: an option is unknown, or no client is active.
        """
        self._client()
        if cell is None:
            words, code = split_line(PX, line)
            options = parse(PX, words)
        else:
            code = cell
            options = parse(PX, line, "%%px stands alone on its line, with the code for the engines below")
        return self._run(code, options.over(self.defaults))

    def _run(self, code: str, options: PxOptions) -> Any:
        client = self._client()
        targets = None if options.targets is None else engines(options.targets, client)
        ranks = None if options.ranks is None else engines(options.ranks, client)
        blocks = client.block if options.block is None else options.block
        if options.profile and not blocks:
            raise UsageError(
                "--profile looks at engines while it waits for them: add --block, or use mec.profile()"
            )
        if options.verbose:
            print(f"Parallel execution on engines: {_named(client.targets if targets is None else targets)}")
        with reports.in_one_line():
            pending: PendingResult[Any] = client.execute(code, targets=targets, block=False)
        self.last = pending
        if options.out is not None:
            self._shell.user_ns[options.out] = pending
        if options.local:
            self._shell.run_cell(code)
        if not blocks:
            return pending
        asked = client.targets if targets is None else targets
        profile = PxProfile(pending, lambda: client.where(asked)) if options.profile else None
        try:
            self._finish(pending, options, None if ranks == "all" else ranks, values=not ends_with_semicolon(code))
        finally:
            if profile is not None:
                self._show_profile(profile)
        return None

    def _show_profile(self, taken: PxProfile) -> None:
        """Show where engines have spent their time, and keep it as ``_profile``."""
        profile, failure = taken.end()
        self._shell.user_ns["_profile"] = profile
        print(failure or profile)

    def _finish(
        self,
        pending: PendingResult[Any],
        options: PxOptions,
        ranks: Sequence[int] | None = None,
        values: bool = True,
    ) -> None:
        """Show a result when it has come, and make it ``_``."""
        kill = self._client().kill
        run = PxRun(self._shell, pending, options, ranks, lambda ids: kill(targets=ids, block=False), values)
        with reports.in_one_line():
            result = run.wait_and_show()
        self._shell.displayhook.update_user_ns(result)

    @line_magic
    def pxconfig(self, line: str) -> None:
        """Set how ``%px``, ``%%px`` and ``%autopx`` run from now on; without options, show it."""
        client = self._client()
        if not line.strip():
            print(reports.settings(client, self.defaults))
            return
        options = parse(PXCONFIG, line)
        if options.targets is not None:
            client.targets = engines(options.targets, client)
        if options.block is not None:
            client.block = options.block
        self.defaults = options._replace(targets=None, block=None).over(self.defaults)

    # --- What came of it --------------------------------------------------------------------------------------

    @line_magic
    def pxresult(self, line: str) -> None:
        """Show the result of the last ``%px`` or ``%%px``; waits for it if it has not come."""
        options = parse(PXRESULT, line)
        if self.last is None:
            raise UsageError("%pxresult shows the result of the last %px or %%px, and there was none yet")
        if options.out is not None:
            self._shell.user_ns[options.out] = self.last
            return
        ranks = None if options.ranks is None else engines(options.ranks, self._client())
        # What has come is ordered as asked; what still comes is shown as it comes.
        options = options._replace(stream=not self.last.done()).over(self.defaults)
        self._finish(self.last, options, None if ranks == "all" else ranks)

    @line_magic
    def result(self, line: str) -> Any:
        """Show the output of command number N: ``%result N``; without N, of the last command that succeeded.

        N may also be the name of a command in ``mec.history()``: ``%result 5-12`` waits for it.

        Raises:
            UsageError: N is neither.
        """
        client = self._client()
        number = line.strip()
        try:
            is_name = "-" in number[1:]
            wanted = number if is_name else int(number) if number else None
        except ValueError:
            raise UsageError(f"%result takes the number of a command, as in %result 3, not {number!r}") from None
        with reports.in_one_line():
            try:
                return client.get_result(wanted)
            except ValueError as error:
                raise UsageError(f"%result: {error}") from None

    @line_magic
    def pxtb(self, line: str) -> None:
        """Show the whole tracebacks of the last failure on engines, equal ones once: ``%pxtb``, ``%pxtb 0:4``."""
        error = self._last_failure()
        if error is None:
            raise UsageError("%pxtb shows the tracebacks of the last exception of engines, and there was none")
        wanted = engines(line, self._client()) if line.strip() else "all"
        ids = None if wanted == "all" else wanted
        print(reports.tracebacks(error, ids, colours_of(self._shell)), end="")

    def _last_failure(self) -> CompositeError | None:
        error = getattr(sys, "last_value", None)
        if isinstance(error, WaitInterrupted):
            error = error.error
        if not isinstance(error, CompositeError):
            error = None if self.last is None or not self.last.done() else self.last.exception()
        return error if isinstance(error, CompositeError) else None

    @line_magic
    def pxdebug(self, line: str) -> None:
        """Open a debugger on an engine: ``%pxdebug 37``.

        Where user code has stopped at a ``breakpoint()``, it is that debugger. Else it shows the frames of the
        last exception of the engine. ``%pxdebug`` alone opens those that wait, or that of the first engine that
        has raised in the last failed command.
        """
        client = self._client()
        word = line.strip()
        if word and not word.isdecimal():
            raise UsageError(f"%pxdebug takes the id of one engine, as in %pxdebug 3, not {word!r}")
        with reports.in_one_line():
            if word or client.debuggers_wait():
                client.debug(int(word) if word else None)
                return
            error = self._last_failure()
            if error is None:
                raise UsageError("%pxdebug takes the id of an engine, as in %pxdebug 3: no command has failed yet")
            client.debug(reports.first_cause(error))

    @line_magic
    def pxlog(self, line: str) -> None:
        """Show what engines have printed lately for this client's commands, and while they ran none.

        ``%pxlog``, or ``%pxlog 3`` for the last three commands. What tasks and threads have printed is told by the
        node agents, however busy the engines are.

        ``%pxlog --since last`` shows what this client has missed: what was printed, and which figures were made,
        for the commands of other clients with the same furl since the last of them was heard of. ``--since 10:30``
        and ``--since 2h`` show everything since then.
        """
        if (since := since_option(line)) is not None:
            client = self._client()
            with reports.in_one_line():
                try:
                    recent = client.recent_outputs(since)
                except ValueError as error:
                    raise UsageError(f"%pxlog --since: {error}") from None
            reports.replay(recent, self._shell)
            return
        count = line.strip() or "10"
        if not count.isdigit():
            raise UsageError(
                f"%pxlog takes a number of commands, as in %pxlog 3, or --since and a moment, not {count!r}"
            )
        client = self._client()
        print(reports.log(client.recent_outputs(), int(count)) + reports.between(client.log()), end="")

    @line_magic
    def where(self, line: str) -> None:
        """Show where the engines are, equal places once: ``%where``, ``%where 0:4``.

        It does not matter what they do, as their node agents read it: also while they wait in MPI, or are stopped.
        ``--all`` shows all functions that each is in, ``--native`` functions of C, too.
        """
        client = self._client()
        options, words = where_options(line)
        targets = None if words is None else engines(words, client)
        print(client.where(targets, native=options.native).text(stacks=options.all))

    def run_all_on_engines(self) -> None:
        """Turn ``%autopx`` on, for magics and shell commands, too: all but the magics of this class."""
        self._autopx.is_local = self._is_own
        self._autopx.enable()

    def goes_to_engines(self, cell: str) -> bool:
        """Return whether ``%autopx`` is on, and a cell runs on the engines."""
        return self._autopx.enabled and not self._autopx.is_local(cell)

    def _is_own(self, cell: str) -> bool:
        name = _MAGIC.match(cell)
        return name is not None and (name["marks"] == "%%" or name["name"] in self.magics["line"])

    # --- %autopx ----------------------------------------------------------------------------------------------

    @line_magic
    def autopx(self, line: str) -> None:  # noqa: ARG002 - what IPython calls
        """Toggle whether cells run on the engines. Magics, shell commands and help still run locally.

        Cells run as with ``%%px``. If the client's ``block`` is False, the value of a cell is a
        :class:`PendingResult`, and its output is shown before the next cell that runs after it has arrived.
        """
        if self._autopx.enabled:
            self._show_what_came()
            self._autopx.disable()
            print("Auto Parallel Disabled")
        else:
            self._client()
            self._autopx.enable()
            print("Auto Parallel Enabled\nType %autopx to disable")

    def execute_cell(self, cell: str) -> Any:
        """Run one cell on the engines and show its output; ``%autopx`` replaces cells by calls of this.

        Returns:
            None; if the client's ``block`` is False, a :class:`PendingResult`, which IPython displays and keeps as
            ``Out[n]``. Its output is shown before the next cell that runs after it has arrived.
        """
        self._client()
        self._show_what_came()
        pending = self._run(cell, PxOptions(verbose=False).over(self.defaults))
        if pending is not None:
            self._pending.append(pending)
        return pending

    def _show_what_came(self) -> None:
        came = [each for each in self._pending if each.done()]
        self._pending = [each for each in self._pending if not each.done()]
        for each in came:
            if each.called:
                continue  # its output was seen when it was retrieved
            try:
                PxRun(self._shell, each, self.defaults._replace(stream=False), None).wait_and_show()
            except Exception as error:
                print(f"{type(error).__name__}: {error}")

    def _client(self) -> Steers:
        if self.active is None:
            raise UsageError(reports.how_to_activate(NO_ACTIVE_CONTROLLER, self._shell.user_ns))
        return self.active


def _named(targets: Any) -> str:
    many = isinstance(targets, (list, tuple)) and len(targets) > _SHOWN_IDS
    return f"[{ranges(targets)}]" if many else str(targets)
