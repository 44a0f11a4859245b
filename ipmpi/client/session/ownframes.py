"""Keeps ipmpi's own frames out of the tracebacks of what failed on engines: they say nothing about the failure."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, TracebackType
from typing import ParamSpec, TypeVar

from ...errors import CompositeError

_PACKAGE = os.path.join(Path(os.path.abspath(__file__)).parents[2], "")

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)


def raises_at_call(function: Callable[P, R]) -> Callable[P, R]:
    """Let the traceback of a CompositeError end in the line that has called ``function``."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except CompositeError as error:
            if not _is_own(error.__traceback__):
                raise  # through a function of the user's that was called in between
            if sys.version_info < (3, 11):
                raise error.with_traceback(None) from error.__cause__
            # From 3.11 on a bare raise takes the traceback from the exception, and does not add this frame to it.
            error.__traceback__ = None
            raise

    return call


def all_raise_at_call(cls: C) -> C:
    """Decorate a class: :func:`raises_at_call` for all public methods that it defines itself."""
    for name, method in list(vars(cls).items()):
        if isinstance(method, FunctionType) and (not name.startswith("_") or name.endswith("item__")):
            setattr(cls, name, raises_at_call(method))
    return cls


def _is_own(traceback: TracebackType | None) -> bool:
    while traceback is not None:
        if not traceback.tb_frame.f_code.co_filename.startswith(_PACKAGE):
            return False
        traceback = traceback.tb_next
    return True
