"""How IPython and Jupyter show what failed on engines.

They ask an exception for its own lines (``_render_traceback_``), but not an exception group: that they leave to
Python. So a handler for :class:`CompositeError` does what they do with other exceptions.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from ...errors import CompositeError


def fold_failures() -> None:
    """In IPython, let failures of engines be shown in their own few lines; elsewhere do nothing.

    A handler that the user has set for exceptions of other kinds stays, and this is left out.
    """
    # Inside IPython it is imported already; elsewhere it should not be.
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is not None and not shell.custom_exceptions:
        shell.set_custom_exc((CompositeError,), _show)


def _show(
    shell: Any,
    kind: type[CompositeError],
    value: CompositeError,
    traceback: TracebackType | None,
    tb_offset: int | None = None,  # noqa: ARG001 - what IPython calls
) -> list[str]:
    sys.last_type, sys.last_value, sys.last_traceback = kind, value, traceback  # for %tb and %debug
    if sys.version_info >= (3, 12):
        sys.last_exc = value
    lines = value._render_traceback_()
    shell._showtraceback(kind, value, lines)
    if shell.call_pdb:
        shell.debugger(force=True)
    return lines
